"""Courier orders as the Sendy logistics challenge has them: from pickup to arrival.

The date has no month, so orders are split by a hash of their number and patterns are means of other
folds. The arrival's own columns are left out: they say the answer.
"""

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang_pipelines.gate import check, load_rules
from madang_pipelines.tables import Rejected

FILES = ("orders.csv", "Riders.csv")
NUMBERS = (
    "day_of_month",
    "platform",
    "business",
    "temperature",
    "rain",
    "placed_minutes",
    "confirmed_minutes",
    "waited_minutes",
    "courier_orders",
    "courier_age",
    "courier_rating",
    "courier_ratings",
)
PATTERNS = (
    "courier",
    "user",
    *(f"{end}{resolution}" for resolution in (6, 7, 8) for end in ("origin", "place")),
    "origin7+place7",
)
_STEPS = ("Placement", "Confirmation", "Arrival at Pickup", "Pickup")
_MONDAY_MS = 4 * 86_400_000  # 5 January 1970
_FOLDS = 5


def load_sendy(folder: Path) -> tuple[pl.DataFrame, Rejected]:
    """Orders as the table `orders` has them, with the columns of NUMBERS and `delivery`, the
    minutes from pickup to arrival; and the rows that were set aside.

    Raises:
        GateError: too many rows break a rule.
    """
    orders, riders = (_read(folder / name) for name in FILES)
    joined = orders.join(riders, on="Rider Id", how="left", maintain_order="left")
    seconds = {step: _seconds(f"{step} - Time") for step in _STEPS}
    waits = [seconds[b] - seconds[a] for a, b in pairwise(_STEPS)]
    waited = [(wait.clip(0, 20_000) / 60).log1p() for wait in waits]
    weekday = pl.col("Pickup - Weekday (Mo = 1)").cast(pl.Int64)
    frame = joined.select(
        pl.col("Order No").alias("order_id"),
        pl.col("User Id").alias("user_id"),
        pl.col("Rider Id").alias("courier_id"),
        time=_MONDAY_MS + ((weekday - 1) * 86_400 + seconds["Pickup"]) * 1000,
        origin_latitude=pl.col("Pickup Lat"),
        origin_longitude=pl.col("Pickup Long"),
        latitude=pl.col("Destination Lat"),
        longitude=pl.col("Destination Long"),
        distance_km=pl.col("Distance (KM)").cast(pl.Float64),
        delivery=pl.col("Time from Pickup to Arrival").cast(pl.Float64) / 60,
        day_of_month=pl.col("Pickup - Day of Month").cast(pl.Float64),
        platform=pl.col("Platform Type").cast(pl.Float64),
        business=(pl.col("Personal or Business") == "Business").cast(pl.Float64),
        temperature=pl.col("Temperature").cast(pl.Float64),
        rain=pl.col("Precipitation in millimeters").cast(pl.Float64).fill_null(0),
        placed_minutes=waited[0],
        confirmed_minutes=waited[1],
        waited_minutes=waited[2],
        courier_orders=pl.col("No_Of_Orders").cast(pl.Float64).log1p(),
        courier_age=pl.col("Age").cast(pl.Float64).log1p(),
        courier_rating=pl.col("Average_Rating").cast(pl.Float64),
        courier_ratings=pl.col("No_of_Ratings").cast(pl.Float64).log1p(),
    )
    return check("courier orders", frame, load_rules("courier_orders"))


def split(order_ids: pl.Series, test: float = 0.2) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which rows to learn from, and their folds; the others are in a fold of their own."""
    digests = [hashlib.sha256(i.encode()).digest() for i in order_ids.to_list()]
    draw = np.array([int.from_bytes(d[:4], "big") for d in digests]) / 2**32
    folds = np.array([d[4] % _FOLDS for d in digests])
    learn = draw < 1 - test
    return learn, np.where(learn, folds, _FOLDS)


def _read(path: Path) -> pl.DataFrame:
    frame = pl.read_csv(path, infer_schema_length=None)
    return frame.rename({name: name.strip() for name in frame.columns})


def _seconds(column: str) -> pl.Expr:
    """Seconds of the day of a time such as "9:35:46 AM"."""
    return pl.col(column).str.to_time("%I:%M:%S %p").dt.hour().cast(pl.Int64) * 3600 + (
        pl.col(column).str.to_time("%I:%M:%S %p").dt.minute().cast(pl.Int64) * 60
        + pl.col(column).str.to_time("%I:%M:%S %p").dt.second().cast(pl.Int64)
    )
