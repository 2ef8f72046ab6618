"""The embedding networks of ads, in torch. Serving never imports this file.

Three groups of inputs, user, context and ad, go through a network each. A (user, context) vector
and an ad's are near where the ad is likely to be clicked.
"""

from functools import partial

import torch
from torch import Tensor, nn

from madang_candidate.model import Standardise, TowerConfig
from madang_runtime.models.context import CELL_BUCKETS
from madang_runtime.models.inputs import columns_of
from madang_runtime.models.layers import Codes, Forget, count_weights, pooled
from madang_runtime.models.manifest import FeatureRef


class _Embedding(nn.Module):
    """Two layers over one group of inputs."""

    def __init__(self, width: int, config: TowerConfig) -> None:
        super().__init__()
        self._layers = nn.Sequential(
            nn.Linear(width, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.dimension)
        )

    def forward(self, parts: list[Tensor]) -> Tensor:
        out: Tensor = self._layers(torch.cat(parts, dim=1))
        return out


class QueryNetwork(nn.Module):
    """Users and the contexts of their requests → vectors of length 1."""

    def __init__(self, config: TowerConfig, features: list[FeatureRef], view: str) -> None:
        super().__init__()
        self._ints = columns_of(features, view, "INT64")
        self._floats = columns_of(features, view, "FLOAT32")
        s, codes = config.small, partial(Codes, std=0.1)
        self.item, self.category = codes(config.items, s), codes(config.categories, s)
        self.district, self.cell = codes(config.districts, s), codes(CELL_BUCKETS, s)
        self.user, self.hour = codes(config.users, s), codes(24, s)
        self.age, self.gender, self.weekday = codes(8, 4), codes(4, 4), codes(7, 4)
        self.numbers = [n for n, c in self._floats.items() if c.stop - c.start == 1]
        self.standardise = Standardise(len(self.numbers))
        self.of_user = _Embedding(4 * s + 8 + len(self.numbers), config)
        self.of_context = _Embedding(2 * s + 4, config)
        self.together = nn.Linear(3 * config.dimension, config.dimension)

    def numbers_of(self, floats: Tensor) -> Tensor:
        """The scalar features, as `standardise.fit` wants them."""
        return torch.cat([floats[:, self._floats[n]] for n in self.numbers], dim=1)

    def forward(
        self, user_ints: Tensor, user_floats: Tensor, context_ints: Tensor, context_floats: Tensor
    ) -> Tensor:
        """Vectors of shape [n, dimension]."""
        del context_floats  # the cell says where
        code = {name: user_ints[:, columns] for name, columns in self._ints.items()}
        counts = count_weights(user_floats[:, self._floats["top_item_counts"]])
        shares = count_weights(user_floats[:, self._floats["top_category_shares"]])
        user = self.of_user(
            [
                pooled(self.item(code["top_items"]), counts),
                pooled(self.category(code["top_categories"]), shares),
                self.user(code["user_code"][:, 0]),
                self.district(code["home_district"][:, 0]),
                self.age(code["age_band"][:, 0]),
                self.gender(code["gender"][:, 0]),
                self.standardise(self.numbers_of(user_floats)),
            ]
        )
        context = self.of_context(
            [
                self.hour(context_ints[:, 0]),
                self.cell(context_ints[:, 2]),
                self.weekday(context_ints[:, 1]),
            ]
        )
        both = self.together(torch.cat([user, context, user * context], dim=1))
        return nn.functional.normalize(both, dim=1)


class AdNetwork(nn.Module):
    """Ads → vectors of length 1. Shares the embeddings of what users did with the query's."""

    def __init__(
        self, config: TowerConfig, features: list[FeatureRef], view: str, query: QueryNetwork
    ) -> None:
        super().__init__()
        self._ints = columns_of(features, view, "INT64")
        floats = columns_of(features, view, "FLOAT32")
        places = {"latitude", "longitude"}
        self._numbers = [c.start for name, c in floats.items() if name not in places]
        self.category, self.district, self.cell = query.category, query.district, query.cell
        self.item = Codes(config.items, config.small, 0.1)
        self.forget = Forget(config.forgotten)
        self.standardise = Standardise(len(self._numbers))
        self.of_ad = _Embedding(4 * config.small + len(self._numbers), config)

    def numbers_of(self, floats: Tensor) -> Tensor:
        """The scalar features, as `standardise.fit` wants them."""
        return floats[:, self._numbers]

    def forward(self, ints: Tensor, floats: Tensor) -> Tensor:
        """Vectors of shape [n, dimension]."""
        code = {name: ints[:, columns][:, 0] for name, columns in self._ints.items()}
        vector = self.of_ad(
            [
                self.item(self.forget(code["item_code"])),
                self.category(code["category"]),
                self.cell(code["cell"]),
                self.district(code["district"]),
                self.standardise(self.numbers_of(floats)),
            ]
        )
        return nn.functional.normalize(vector, dim=1)


class Preference(nn.Module):
    """Logits of a click from a (user, context) vector and an ad's; only training uses it."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self._layers = nn.Sequential(
            nn.Linear(3 * config.dimension, config.hidden), nn.ReLU(), nn.Linear(config.hidden, 1)
        )

    def forward(self, query: Tensor, ad: Tensor) -> Tensor:
        """Logits of shape [n]."""
        logits: Tensor = self._layers(torch.cat([query, ad, query * ad], dim=1))
        return logits[:, 0]
