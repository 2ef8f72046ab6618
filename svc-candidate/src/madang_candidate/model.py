"""The two towers, in torch. Serving never imports this file."""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from madang_runtime.models.context import CELL_BUCKETS
from madang_runtime.models.inputs import columns_of
from madang_runtime.models.layers import (
    WIDEST,
    Codes,
    Forget,
    count_weights,
    pooled,
    recency_weights,
)
from madang_runtime.models.manifest import FeatureRef


@dataclass(frozen=True)
class TowerConfig:
    """Sizes of the towers.

    Attributes:
        users, items, categories, districts: vocabulary sizes, code 0 (unknown) included.
        dimension: of the vectors and of the item embeddings.
        small: dimension of the other embeddings.
        hidden: width of the hidden layer.
        forgotten: share of items that training takes for unknown.
    """

    users: int
    items: int
    categories: int
    districts: int
    dimension: int = 64
    small: int = 16
    hidden: int = 192
    forgotten: float = 0.1

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


class Standardise(nn.Module):
    """(x − mean) / std per column; NaN, no value, becomes the mean."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("std", torch.ones(columns))

    def fit(self, rows: Tensor) -> None:
        """Take mean and std from training rows, shape [n, columns]."""
        known = ~torch.isnan(rows)
        n = known.sum(0).clamp(min=1)
        filled = torch.where(known, rows, torch.zeros_like(rows))
        self.mean = filled.sum(0) / n
        deviation = torch.where(known, rows - self.mean, torch.zeros_like(rows))
        self.std = ((deviation**2).sum(0) / n).sqrt().clamp(min=1e-3)

    def forward(self, rows: Tensor) -> Tensor:
        """Standardise rows of shape [n, columns]."""
        scaled = ((rows - self.mean) / self.std).clamp(-WIDEST, WIDEST)
        return torch.where(torch.isnan(scaled), torch.zeros_like(scaled), scaled)


class UserTower(nn.Module):
    """Users, their history and the context of the request → vectors of length 1."""

    def __init__(self, config: TowerConfig, features: list[FeatureRef], view: str) -> None:
        super().__init__()
        self._ints = columns_of(features, view, "INT64")
        self._floats = columns_of(features, view, "FLOAT32")
        d, s = config.dimension, config.small
        codes = partial(Codes, std=0.1)
        self.item = codes(config.items, d)
        self.user = codes(config.users, s)
        self.age, self.gender = codes(8, 4), codes(4, 4)
        self.district = codes(config.districts, s)
        self.category = codes(config.categories, s)
        self.hour, self.weekday = codes(24, s), codes(7, 4)
        self.cell = codes(CELL_BUCKETS, s)
        self.numbers = [n for n, c in self._floats.items() if c.stop - c.start == 1]
        self.standardise = Standardise(len(self.numbers))
        width = 2 * d + 5 * s + 12 + len(self.numbers)
        self.layers = nn.Sequential(
            nn.Linear(width, config.hidden), nn.ReLU(), nn.Linear(config.hidden, d)
        )

    def numbers_of(self, floats: Tensor) -> Tensor:
        """The scalar features, as `standardise.fit` wants them."""
        return torch.cat([floats[:, self._floats[n]] for n in self.numbers], dim=1)

    def forward(
        self, user_ints: Tensor, user_floats: Tensor, context_ints: Tensor, context_floats: Tensor
    ) -> Tensor:
        """Vectors of shape [n, dimension]."""
        del context_floats  # the cell says where
        code = {name: user_ints[:, columns] for name, columns in self._ints.items()}
        top_weights = count_weights(user_floats[:, self._floats["top_item_counts"]])
        shares = count_weights(user_floats[:, self._floats["top_category_shares"]])
        top = pooled(self.item(code["top_items"]), top_weights)
        last = pooled(self.item(code["last_items"]), recency_weights(code["last_items"]))
        x = torch.cat(
            [
                top,
                last,
                self.user(code["user_code"][:, 0]),
                self.age(code["age_band"][:, 0]),
                self.gender(code["gender"][:, 0]),
                self.district(code["home_district"][:, 0]),
                pooled(self.category(code["top_categories"]), shares),
                self.hour(context_ints[:, 0]),
                self.weekday(context_ints[:, 1]),
                self.cell(context_ints[:, 2]),
                self.standardise(self.numbers_of(user_floats)),
            ],
            dim=1,
        )
        return nn.functional.normalize(self.layers(x) + 0.5 * (top + last), dim=1)


class ItemTower(nn.Module):
    """Items → vectors of length 1. Shares the item and cell embeddings with the user tower."""

    def __init__(
        self, config: TowerConfig, features: list[FeatureRef], view: str, user_tower: UserTower
    ) -> None:
        super().__init__()
        self._ints = columns_of(features, view, "INT64")
        floats = columns_of(features, view, "FLOAT32")
        places = {"latitude", "longitude"}
        self._numbers = [c.start for name, c in floats.items() if name not in places]
        self.item, self.cell = user_tower.item, user_tower.cell
        self.category, self.district = user_tower.category, user_tower.district
        self.kind = Codes(4, 4, 1.0)
        self.forget = Forget(config.forgotten)
        self.standardise = Standardise(len(self._numbers))
        width = config.dimension + 3 * config.small + 4 + len(self._numbers)
        self.layers = nn.Sequential(
            nn.Linear(width, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.dimension)
        )

    def numbers_of(self, floats: Tensor) -> Tensor:
        """The features that `standardise.fit` wants."""
        return floats[:, self._numbers]

    def forward(self, ints: Tensor, floats: Tensor) -> Tensor:
        """Vectors of shape [n, dimension]."""
        code = {name: ints[:, columns][:, 0] for name, columns in self._ints.items()}
        own = self.item(self.forget(code["item_code"]))
        x = torch.cat(
            [
                own,
                self.category(code["category"]),
                self.district(code["district"]),
                self.cell(code["cell"]),
                self.kind(code["kind"]),
                self.standardise(self.numbers_of(floats)),
            ],
            dim=1,
        )
        return nn.functional.normalize(self.layers(x) + own, dim=1)
