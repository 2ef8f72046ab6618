"""The means of patterns: without an order's own future for training, whole for the store."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang_eta.layout import Layout
from madang_eta.orders import Coded, Orders
from madang_eta.patterns import MAX_STAGES, keys

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
_PRIOR = {"all": 20.0, "week": 10.0, "day": 5.0}  # orders at mean 0 that a key starts with
_DAYS = {"week": 7, "day": 1}


@dataclass(frozen=True)
class Past:
    """Orders whose stages are known, and when.

    Attributes:
        minutes: NaN where a stage is not known, shape [n, stages].
        weights: what each order counts, 0 for those that must not be learned from.
        groups: the day of each order, or a fold where time is not known; from 0, shape [n].
        causal: whether groups are days: then an order knows only days before its own. Else it knows
            all groups but its own.
    """

    minutes: Floats
    weights: Floats
    groups: Ints
    causal: bool


class PatternMeans:
    """How orders of a key deviated from what distance explains.

    Args:
        layout: which patterns, and the line of each stage.
        service: whose they are.
        orders: n orders.
        past: what is known of them.
    """

    def __init__(self, layout: Layout, service: str, orders: Orders, past: Past) -> None:
        self._layout, self._past = layout, past
        hours = layout.local_hours(orders)
        self._keys = [keys(p, service, orders, hours) for p in layout.patterns]
        lines = layout.lines(orders)
        known = ~np.isnan(past.minutes)
        minutes = np.where(known, past.minutes, lines)
        residual = minutes - lines
        weights = past.weights[:, None] * known
        self._values = {
            "residual": residual,
            "ratio": np.log(np.maximum(minutes, 0.5) / lines),
            "spread": np.abs(residual) - np.array(layout.typical),
        }
        self._weights = weights
        self._last = int(past.groups.max(initial=0))

    def before_each(self) -> Floats:
        """What each order could know, as `Layout.columns` takes it: [n, patterns, columns]."""
        found = []
        for key in self._keys:
            known = np.array([bool(value) for value in key.values])[key.codes]
            found.append(self._columns(key, None) * known[:, None])
        return np.stack(found, axis=1)

    def rows(self, day: int | None = None) -> pl.DataFrame:
        """The rows of the view: as of the beginning of a day, or after everything."""
        frames = []
        names = [(ref.name, ref.dim) for ref in self._layout.pattern_features()]
        for key in self._keys:
            table = self._columns(key, self._last + 1 if day is None else day)
            seen = np.flatnonzero((table != 0).any(1) & np.array([bool(v) for v in key.values]))
            columns: dict[str, object] = {"entity_id": [key.values[i] for i in seen.tolist()]}
            at = 0
            for name, dim in names:
                cells = table[seen, at : at + dim].astype(np.float32)
                columns[name] = cells[:, 0] if dim == 1 else cells
                at += dim
            schema = {n: pl.Float32() if d == 1 else pl.Array(pl.Float32, d) for n, d in names}
            frames.append(pl.DataFrame(columns, schema={"entity_id": pl.String(), **schema}))
        return pl.concat(frames)

    def _columns(self, key: Coded, day: int | None) -> Floats:
        """Means by key as of a day; with None by order, as of its own group: shape [*, columns]."""
        sums = _Sums(key, self._past, day)
        found = []
        for horizon in self._layout.horizons:
            prior = _PRIOR[horizon]
            count = sums.of(self._weights, horizon)
            for name in ("residual", "ratio", "spread") if horizon == "all" else ("residual",):
                total = sums.of(self._values[name] * self._weights, horizon)
                means = np.zeros((len(total), MAX_STAGES))
                means[:, : total.shape[1]] = total / (count + prior)
                found.append(means)
            found.append(np.log1p(count.max(1, keepdims=True)))
        return np.concatenate(found, axis=1)


class _Sums:
    """Sums over the past of keys, from running sums over orders sorted by key and group.

    Args:
        key: of each order.
        past: their groups.
        day: by key, as of its beginning; None: by order, of what it may know.
    """

    def __init__(self, key: Coded, past: Past, day: int | None) -> None:
        self._span = int(past.groups.max(initial=0)) + 2
        at = key.codes * self._span + past.groups
        self._order = np.argsort(at, kind="stable")
        self._sorted = at[self._order]
        by_order = day is None
        self._rows = key.codes if by_order else np.arange(len(key.values))
        self._groups = past.groups if by_order else np.full(len(self._rows), day)
        self._causal, self._by_order = past.causal, by_order

    def of(self, values: Floats, horizon: str) -> Floats:
        """Sums of columns, shape [orders or keys, columns]."""
        running = np.zeros((len(values) + 1, values.shape[1]))
        np.cumsum(values[self._order], axis=0, out=running[1:])

        def before(groups: Ints) -> Floats:
            found: Floats = running[np.searchsorted(self._sorted, self._rows * self._span + groups)]
            return found

        first, end = np.zeros_like(self._groups), np.full_like(self._groups, self._span - 1)
        own = self._groups
        if self._causal:
            since = np.maximum(own - _DAYS[horizon], 0) if horizon in _DAYS else first
            return before(np.minimum(own, end)) - before(np.minimum(since, end))
        whole = before(end) - before(first)
        return whole - (before(own + 1) - before(own)) if self._by_order else whole
