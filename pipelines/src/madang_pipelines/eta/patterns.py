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
        found = []
        for horizon in self._layout.horizons:
            prior = _PRIOR[horizon]
            count = self._sums(key, self._weights, horizon, day)
            for name in ("residual", "ratio", "spread") if horizon == "all" else ("residual",):
                sums = self._sums(key, self._values[name] * self._weights, horizon, day)
                means = np.zeros((len(sums), MAX_STAGES))
                means[:, : sums.shape[1]] = sums / (count + prior)
                found.append(means)
            found.append(np.log1p(count.max(1, keepdims=True)))
        return np.concatenate(found, axis=1)

    def _sums(self, key: Coded, values: Floats, horizon: str, day: int | None) -> Floats:
        """Sums of each stage by key, of the groups that may be known."""
        past, groups, m = self._past, self._last + 1, len(key.values)
        at = key.codes * groups + past.groups
        found = []
        for column in values.T:
            sums: Floats = np.bincount(at, column, m * groups).reshape(m, groups).astype(float)
            found.append(self._known(sums, key, horizon, day))
        return np.stack(found, axis=1)

    def _known(self, sums: Floats, key: Coded, horizon: str, day: int | None) -> Floats:
        own = self._past.groups
        rows = key.codes if day is None else np.arange(len(sums))
        if not self._past.causal:
            whole: Floats = sums.sum(1)[rows]
            own_group: Floats = sums[rows, own]
            return whole if day is not None else whole - own_group
        ended = np.zeros((sums.shape[0], sums.shape[1] + 1))
        np.cumsum(sums, axis=1, out=ended[:, 1:])
        until = own if day is None else np.full(len(sums), day)
        since = np.maximum(until - _DAYS[horizon], 0) if horizon in _DAYS else np.zeros_like(until)
        found: Floats = ended[rows, until] - ended[rows, since]
        return found
