"""DCN-V2 with three heads, in torch. Serving never imports this file.

Source: Wang et al., "DCN V2: Improved deep & cross network", WWW 2021; the parallel structure.
The features of a user and context are common to all rows of a request. Their embeddings, and their
part of the first cross and deep layers (W x₀ = W_c c + W_r r), are computed once a request.
"""

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
class DcnConfig:
    """Sizes of the network. The default is as wide (643) as 39 fields of dimension 16 make it.

    Attributes:
        users, items, categories, districts: vocabulary sizes, code 0 (unknown) included.
        item_dimension: of the item embeddings.
        dimension: of the other large vocabularies' embeddings.
        cross_layers: full-rank cross layers.
        hidden: widths of the two deep layers.
        forgotten: share of items that training takes for unknown.
    """

    users: int
    items: int
    categories: int
    districts: int
    item_dimension: int = 64
    dimension: int = 64
    cross_layers: int = 3
    hidden: tuple[int, int] = (512, 256)
    forgotten: float = 0.1

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


class Standardise(nn.BatchNorm1d):
    """Running standardisation of columns; NaN, no value, becomes the mean."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Standardise rows of shape [n, columns]."""
        missing = torch.isnan(input)
        filled = torch.where(missing, self.running_mean.expand_as(input), input)  # type: ignore[union-attr]
        return super().forward(filled).clamp(-WIDEST, WIDEST)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1, keepdim=True)


class Dcn(nn.Module):
    """Logits of P(click), P(order | click) and P(hide) of each row."""

    def __init__(
        self, config: DcnConfig, features: list[FeatureRef], views: tuple[str, str]
    ) -> None:
        super().__init__()
        self._user = {t: columns_of(features, views[0], t) for t in ("INT64", "FLOAT32")}
        self._item = {t: columns_of(features, views[1], t) for t in ("INT64", "FLOAT32")}
        codes = partial(Codes, std=0.05)
        d, i = config.dimension, config.item_dimension
        self.item, self.user = codes(config.items, i), codes(config.users, i)
        self.age, self.gender, self.kind = codes(8, 4), codes(4, 4), codes(4, 4)
        self.district = codes(config.districts, d // 2)
        self.category, self.cell = codes(config.categories, d), codes(CELL_BUCKETS, d)
        self.hour, self.weekday = codes(24, d // 2), codes(7, 4)
        self.category_hour = codes(config.categories * 24, 4)
        self._user_numbers = _scalars(self._user["FLOAT32"])
        places = {"latitude", "longitude"}
        self._item_numbers = [c for n, c in self._item["FLOAT32"].items() if n not in places]
        self.user_scale = Standardise(len(self._user_numbers), affine=False)
        self.item_scale = Standardise(len(self._item_numbers) + 5, affine=False)
        common = 3 * i + 2 * d + 2 * (d // 2) + 12 + len(self._user_numbers)
        rows = i + 2 * d + d // 2 + 8 + len(self._item_numbers) + 5 + 3
        width = common + rows
        self.cross_common = nn.Linear(common, width, bias=False)
        self.cross_rows = nn.Linear(rows, width)
        self.deep_common = nn.Linear(common, config.hidden[0], bias=False)
        self.deep_rows = nn.Linear(rows, config.hidden[0])
        self.cross = nn.ModuleList(nn.Linear(width, width) for _ in range(config.cross_layers - 1))
        self.deep = nn.Linear(*config.hidden)
        self.heads = nn.Linear(width + config.hidden[1], 3)
        self.forget = Forget(config.forgotten)

    def forward(
        self,
        user_ints: Tensor,
        user_floats: Tensor,
        context_ints: Tensor,
        context_floats: Tensor,
        item_ints: Tensor,
        item_floats: Tensor,
        segment: Tensor,
    ) -> Tensor:
        """Logits of P(click), P(order | click) and P(hide), shape [rows, 3].

        Args:
            user_ints, user_floats, context_ints, context_floats: one row a request.
            item_ints, item_floats: one row an item.
            segment: the request of each item, int64.
        """
        user = {n: user_ints[:, c] for n, c in self._user["INT64"].items()}
        item = {n: item_ints[:, c][:, 0] for n, c in self._item["INT64"].items()}
        counts = count_weights(user_floats[:, self._user["FLOAT32"]["top_item_counts"]])
        shares = count_weights(user_floats[:, self._user["FLOAT32"]["top_category_shares"]])
        who = self.user(user["user_code"][:, 0])
        top = pooled(self.item(user["top_items"]), counts)
        last = pooled(self.item(user["last_items"]), recency_weights(user["last_items"]))
        common = torch.cat(
            [
                who,
                top,
                last,
                pooled(self.category(user["top_categories"]), shares),
                self.cell(context_ints[:, 2]),
                self.district(user["home_district"][:, 0]),
                self.hour(context_ints[:, 0]),
                self.age(user["age_band"][:, 0]),
                self.gender(user["gender"][:, 0]),
                self.weekday(context_ints[:, 1]),
                self.user_scale(torch.cat([user_floats[:, c] for c in self._user_numbers], dim=1)),
            ],
            dim=1,
        )
        what = self.item(self.forget(item["item_code"]))
        hour = context_ints[:, 0][segment]
        numbers = torch.cat(
            [
                *(item_floats[:, c] for c in self._item_numbers),
                self._distance(context_floats[segment], item_floats),
                *self._matches(user, counts, shares, item, segment),
            ],
            dim=1,
        )
        rows = torch.cat(
            [
                what,
                self.category(item["category"]),
                self.cell(item["cell"]),
                self.district(item["district"]),
                self.kind(item["kind"]),
                self.category_hour(self.category.known(item["category"]) * 24 + hour),
                self.item_scale(numbers),
                _dot(who[segment], what),
                _dot(top[segment], what),
                _dot(last[segment], what),
            ],
            dim=1,
        )
        x0 = torch.cat([common[segment], rows], dim=1)
        x = x0 * (self.cross_common(common)[segment] + self.cross_rows(rows)) + x0
        for layer in self.cross:
            x = x0 * layer(x) + x
        deep = torch.relu(self.deep_common(common)[segment] + self.deep_rows(rows))
        logits: Tensor = self.heads(torch.cat([x, torch.relu(self.deep(deep))], dim=1))
        return logits

    def _distance(self, place: Tensor, item_floats: Tensor) -> Tensor:
        """log(1 + kilometres) between request and item, on a locally flat earth."""
        columns = self._item["FLOAT32"]
        lat, lng = item_floats[:, columns["latitude"]], item_floats[:, columns["longitude"]]
        north = (place[:, :1] - lat) * 111.2
        east = torch.remainder(place[:, 1:] - lng + 180, 360) - 180
        east = east * 111.2 * torch.cos(torch.deg2rad(place[:, :1]))
        return torch.log1p(torch.sqrt(north**2 + east**2))

    @staticmethod
    def _matches(
        user: dict[str, Tensor],
        counts: Tensor,
        shares: Tensor,
        item: dict[str, Tensor],
        segment: Tensor,
    ) -> list[Tensor]:
        """How the item relates to what the user did, each of shape [rows, 1]."""

        def same(of_user: str, of_item: str) -> Tensor:
            code = item[of_item].unsqueeze(1)
            return (user[of_user][segment] == code) & (code > 0)  # unknown is like nothing

        bought = (same("top_items", "item_code") * counts[segment]).sum(1, keepdim=True)
        lately = same("last_items", "item_code").float().sum(1, keepdim=True)
        kind = (same("top_categories", "category") * shares[segment]).sum(1, keepdim=True)
        return [torch.log1p(bought), lately, kind, same("home_district", "district").float()]


class Probabilities(nn.Module):
    """What is served: P(click), P(order) = P(click) · P(order | click) and P(hide), each of shape
    [rows]."""

    def __init__(self, dcn: nn.Module) -> None:
        super().__init__()
        self._dcn = dcn

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From the arguments of `Dcn.forward`."""
        p = torch.sigmoid(self._dcn(*inputs))
        return p[:, 0], p[:, 0] * p[:, 1], p[:, 2]


def _scalars(columns: dict[str, slice]) -> list[slice]:
    return [c for c in columns.values() if c.stop - c.start == 1]
