"""The table of orders as svc-eta's columns."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang_eta.layout import AREA_VIEW, SHOP_VIEW
from madang_eta.orders import Coded, Orders, Points

LIVE = {
    AREA_VIEW: ("open_orders", "free_couriers", "rain", "temperature"),
    SHOP_VIEW: ("cooking",),
}
"""The columns of the table that are features of the live views, as they were when it was placed."""
_IDS = {"shop": "shop_id", "courier": "courier_id", "user": "user_id", "category": "category"}


def orders_of(frame: pl.DataFrame, numbers: Sequence[str] = ()) -> Orders:
    """Rows of the table `orders`, with columns of it as numbers."""
    origin = frame.select("origin_latitude", "origin_longitude").to_numpy()
    distance = (
        frame["distance_km"].cast(pl.Float64).to_numpy()
        if "distance_km" in frame.columns
        else np.full(len(frame), np.nan)
    )
    return Orders(
        time_ms=frame["time"].to_numpy().astype(np.int64),
        origin=Points.of(origin),
        place=Points.of(frame.select("latitude", "longitude").to_numpy()),
        distance_km=distance,
        ids={
            name: Coded.of(frame[column].cast(pl.String).fill_null("").to_list())
            for name, column in _IDS.items()
            if column in frame.columns
        },
        numbers={name: frame[name].cast(pl.Float64).to_numpy() for name in numbers},
    )


def live_of(frame: pl.DataFrame, names: Sequence[str]) -> NDArray[np.float64]:
    """Features of the live views as they were, shape [n, names]; NaN where they are not known."""
    return _matrix(frame, names)


def stage_minutes(frame: pl.DataFrame, stages: Sequence[str]) -> NDArray[np.float64]:
    """What each stage took, NaN where that is not known, shape [n, stages]."""
    return _matrix(frame, stages)


def _matrix(frame: pl.DataFrame, names: Sequence[str]) -> NDArray[np.float64]:
    columns = [frame[name].cast(pl.Float64).to_numpy() for name in names]
    return np.stack(columns, axis=1) if columns else np.empty((len(frame), 0))
