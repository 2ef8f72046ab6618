"""Estimates that a batch refreshes: a row of the feature view `eta_list` each shop and cell."""

import numpy as np

from madang.eta.v1 import eta_pb2 as pb
from madang_eta.answers import Arrivals
from madang_eta.distribution import Floats, Windows, means, mode_windows, quantiles
from madang_eta.orders import Ints
from madang_runtime.models.inputs import ViewInputs
from madang_runtime.models.manifest import FeatureRef

VIEW = "eta_list"
CELL_RESOLUTION = 8
LEVELS = np.array([0.01, *np.arange(0.05, 0.96, 0.05), 0.99])
"""Of the quantiles that are kept."""
FEATURES = [
    FeatureRef(view=VIEW, name=name, dtype="FLOAT32", dim=dim)
    for name, dim in (
        ("mean", 1),
        ("window_start", 1),
        ("window_end", 1),
        ("window_probability", 1),
        ("quantiles", len(LEVELS)),
    )
]
INPUTS = ViewInputs(VIEW, FEATURES)


def list_key(service: str, shop_id: str, cell: str) -> str:
    """The view's entity."""
    return f"{service}/{shop_id}/{cell}"


def list_rows(pmf: Floats, window_minutes: int) -> Floats:
    """Rows of the view from distributions, shape [n, columns of FEATURES]."""
    window = mode_windows(pmf, window_minutes)
    columns = (means(pmf), window.start, window.end, window.probability)
    first = np.stack(columns, axis=1)
    return np.concatenate([first, quantiles(pmf, LEVELS)], axis=1, dtype=np.float32)


def listed(rows: Floats, levels: Floats, buffer: Ints) -> Arrivals:
    """What rows of the view say, with buffers; quantiles between those kept are interpolated."""
    mean, start, end, probability = (rows[:, i].astype(np.float64) for i in range(4))
    found = np.stack([np.interp(levels, LEVELS, row) for row in rows[:, 4:]])
    window = Windows(
        np.maximum(np.rint(start).astype(np.int64) + buffer, 0),
        np.maximum(np.rint(end).astype(np.int64) + buffer, 1),
        probability,
    )
    return Arrivals(
        np.full(len(rows), pb.ETA_SOURCE_LIST),
        np.maximum(mean + buffer, 0),
        np.maximum(found + buffer[:, None], 0),
        window,
        buffer,
    )
