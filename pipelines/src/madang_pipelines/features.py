"""Feature rows from tables, as of the beginning of each period."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang.feature.v1 import feature_store_pb2
from madang_featurestore.yaml_views import load_view
from madang_pipelines.tables import Tables
from madang_runtime.models.context import cell_bucket
from madang_runtime.models.inputs import InputRows, columns_of, feature_refs
from madang_runtime.models.manifest import FeatureRef

Ints = NDArray[np.int64]
Floats = NDArray[Any]
Scalar = TypeVar("Scalar", bound=np.generic)

USER_VIEW, ITEM_VIEW, SEGMENT_VIEW = "user_profile", "item_profile", "user_segments"
_CLICK_WEIGHT = 0.25
_RATE_PRIOR = 20.0  # impressions at the mean rate that an item starts with


def load_views() -> dict[str, feature_store_pb2.FeatureView]:
    """The views of this package by name."""
    folder = Path(str(files("madang_pipelines") / "views"))
    return {path.stem: load_view(path) for path in sorted(folder.glob("*.yaml"))}


def model_features() -> list[FeatureRef]:
    """All features of the two profile views."""
    views = load_views()
    return [ref for view in (USER_VIEW, ITEM_VIEW) for ref in feature_refs(views[view])]


class FeatureBuilder:
    """Makes the rows of `user_profile` and `item_profile`; row i is the i-th user or item.

    An id's code is its row plus 1.
    """

    def __init__(self, tables: Tables) -> None:
        self._users, self._items = tables.frames["users"], tables.frames["items"]
        self.user_rows = _rows_of(self._users["user_id"])
        self.item_rows = _rows_of(self._items["item_id"])
        places = self._items.select("latitude", "longitude").iter_rows()
        self._cells = np.array([cell_bucket(*place) for place in places], np.int64)
        self._log_price = np.log(self._items["price"].fill_null(np.nan).to_numpy())
        actions = tables.frames["actions"].sort("time", maintain_order=True)
        self._actions = _Actions(
            look_up(self.user_rows, actions["user_id"]),
            look_up(self.item_rows, actions["item_id"]),
            (actions["type"] == "order").to_numpy(),
            actions["period"].to_numpy(),
        )
        self._shown = self._impressions(tables) if tables.real_impressions else None
        self._features = model_features()

    def _impressions(self, tables: Tables) -> pl.DataFrame:
        periods = tables.frames["sessions"].select("session_id", "period")
        return (
            tables.frames["impressions"]
            .join(periods, "session_id")
            .group_by("item_id", "period")
            .agg(pl.len().alias("shown"), pl.col("clicked", "ordered").sum().cast(pl.Float64))
        )

    def users(self, period: int) -> InputRows:
        """Rows of user_profile as of the beginning of a period, one a user."""
        n, did = len(self._users), self._actions.before(period)
        orders = did.order.astype(np.float64)
        categories = self._items["category"].to_numpy()[did.item]
        weight = np.where(did.order, 1.0, _CLICK_WEIGHT)
        top_items, top_counts = _top(did.user, did.item + 1, weight, n, 20)
        top_categories, category_counts = _top(did.user, categories, weight, n, 4)
        total = np.bincount(did.user, weight, n)
        price = self._log_price[did.item]
        priced = orders * ~np.isnan(price)
        price_sum = np.bincount(did.user, np.nan_to_num(price) * priced, n)
        price_n = np.bincount(did.user, priced, n)
        values: dict[str, NDArray[np.generic]] = {
            "user_code": np.arange(1, n + 1),
            "age_band": self._users["age_band"].to_numpy(),
            "gender": self._users["gender"].to_numpy(),
            "home_district": self._users["home_district"].to_numpy(),
            "orders": np.log1p(np.bincount(did.user, orders, n)),
            "clicks": np.log1p(np.bincount(did.user, 1 - orders, n)),
            "mean_price": _ratio(price_sum, price_n),
            "top_items": top_items,
            "top_item_counts": top_counts,
            "last_items": _last(did.user[did.order], did.item[did.order] + 1, n, 5),
            "top_categories": top_categories,
            "top_category_shares": category_counts / np.maximum(total, 1e-9)[:, None],
        }
        return self._pack(USER_VIEW, values, n)

    def items(self, period: int) -> InputRows:
        """Rows of item_profile as of the beginning of a period, one an item."""
        n, did = len(self._items), self._actions.before(period)
        rates = self._rates(period)
        values: dict[str, NDArray[np.generic]] = {
            "item_code": np.arange(1, n + 1),
            "kind": self._items["kind"].to_numpy(),
            "category": self._items["category"].to_numpy(),
            "district": self._items["district"].to_numpy(),
            "cell": self._cells,
            "latitude": self._items["latitude"].to_numpy(),
            "longitude": self._items["longitude"].to_numpy(),
            "price": self._log_price,
            "orders": np.log1p(np.bincount(did.item, did.order, n)),
            "click_rate": rates[0],
            "order_rate": rates[1],
        }
        return self._pack(ITEM_VIEW, values, n)

    def _rates(self, period: int) -> tuple[Floats, Floats]:
        n = len(self._items)
        if self._shown is None:
            return np.full(n, np.nan), np.full(n, np.nan)
        past = self._shown.filter(pl.col("period") < period)
        row = look_up(self.item_rows, past["item_id"])
        shown, clicked, ordered = (
            np.bincount(row, past[c].to_numpy(), n) for c in ("shown", "clicked", "ordered")
        )
        rates = [
            np.where(
                shown > 0,
                (done + _RATE_PRIOR * done.sum() / max(shown.sum(), 1)) / (shown + _RATE_PRIOR),
                np.nan,
            )
            for done in (clicked, ordered)
        ]
        return rates[0], rates[1]

    def _pack(self, view: str, values: dict[str, NDArray[np.generic]], n: int) -> InputRows:
        packed = []
        for dtype, kind in (("INT64", np.int64), ("FLOAT32", np.float32)):
            names = columns_of(self._features, view, dtype)
            packed.append(
                np.concatenate([values[f].reshape(n, -1).astype(kind) for f in names], axis=1)
            )
        return InputRows(packed[0], packed[1])


@dataclass(frozen=True)
class _Actions:
    """Actions in time order, as columns."""

    user: Ints
    item: Ints
    order: NDArray[np.bool_]
    period: Ints

    def before(self, period: int) -> "_Actions":
        past = self.period < period
        return _Actions(self.user[past], self.item[past], self.order[past], self.period[past])


def _rows_of(ids: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({"id": ids}).with_row_index("row")


def look_up(rows: pl.DataFrame, ids: pl.Series) -> Ints:
    """The rows of ids. All must be known."""
    found = pl.DataFrame({"id": ids}).join(rows, "id", how="left", maintain_order="left")["row"]
    return found.cast(pl.Int64).to_numpy()


def _ratio(sums: Floats, counts: Floats) -> Floats:
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _top(users: Ints, codes: Ints, weight: Floats, n: int, k: int) -> tuple[Ints, Floats]:
    """The k heaviest codes of each user and their weights, shape [n, k]; 0 fills."""
    span = int(codes.max(initial=0)) + 1
    pairs, inverse = np.unique(users * span + codes, return_inverse=True)
    weights = np.bincount(inverse, weight, len(pairs))
    owner, code = pairs // span, pairs % span
    order = np.lexsort((code, -weights, owner))
    return _first(owner[order], code[order], n, k), _first(owner[order], weights[order], n, k)


def _last(users: Ints, codes: Ints, n: int, k: int) -> Ints:
    """The last k codes of each user, newest first; 0 fills. `users` is in time order."""
    newest_first = np.lexsort((-np.arange(len(users)), users))
    return _first(users[newest_first], codes[newest_first], n, k)


def _first(owner: Ints, values: NDArray[Scalar], n: int, k: int) -> NDArray[Scalar]:
    """The first k values of each owner; `owner` is sorted."""
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    kept = rank < k
    out = np.zeros((n, k), values.dtype)
    out[owner[kept], rank[kept]] = values[kept]
    return out
