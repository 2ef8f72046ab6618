"""How the city's orders are delivered: dispatch, pickup and delivery, with what is true hidden.

Couriers are scarce where many order and when it rains; a shop has a pace of its own, and a kitchen
that is busy is late; buildings are easy or hard to enter; and a big order is slow in all stages,
which nobody sees beforehand: stages depend on each other.
"""

from dataclasses import dataclass

import h3
import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang_pipelines.city.truth import kilometres

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_HOUR_MS, _SLOT_MS = 3_600_000, 600_000
_AREA = 6
_RIVER = 37.53  # degrees north, roughly where the Han flows
_BIG_ORDER = np.array([0.45, 0.35, 0.2])  # what it adds to log minutes of each stage
_NOISE = np.array([0.5, 0.22, 0.2])
_DEMAND = np.array(
    [2, 1, 0.5, 0.3, 0.2, 0.3, 0.6, 1.5, 2.5, 3, 3.5, 7, 9, 6, 4, 3.5, 4, 6, 9, 10, 8, 6, 5, 3.5]
)
STAGES = ("dispatch", "pickup", "delivery")


@dataclass(frozen=True)
class DeliveryTruth:
    """What is true of n orders.

    Attributes:
        log_minutes: median of each stage, shape [n, 3].
    """

    log_minutes: Floats

    def sample(self, rng: np.random.Generator, draws: int, rows: Ints) -> Floats:
        """Minutes of each stage, shape [rows, draws, 3]."""
        big = rng.normal(size=(len(rows), draws, 1)) * _BIG_ORDER
        noise = rng.normal(size=(len(rows), draws, 3)) * _NOISE
        drawn: Floats = np.exp(self.log_minutes[rows, None, :] + big + noise)
        return drawn


def deliver(
    sessions: pl.DataFrame, impressions: pl.DataFrame, items: pl.DataFrame, start_ms: int, seed: int
) -> tuple[pl.DataFrame, DeliveryTruth]:
    """The table `orders` of what was ordered, in time order, and the truth behind it."""
    rng = np.random.default_rng([seed, 2])  # changes nothing else in the city
    orders = (
        impressions.filter("ordered")
        .join(sessions, "session_id", maintain_order="left")
        .join(_shops(items, rng), "item_id", maintain_order="left")
        .sort("time", "session_id", "item_id")
        .with_row_index("number")
    )
    n = len(orders)
    place = orders.select("latitude", "longitude").to_numpy()
    origin = orders.select("origin_latitude", "origin_longitude").to_numpy()
    hours = (orders["time"].to_numpy() - start_ms) / _HOUR_MS
    weather, live = _weather(rng, hours.max()), _Areas(rng, hours.max())
    rain, warmth = weather[hours.astype(np.int64)].T
    cells = [h3.latlng_to_cell(*p, _AREA) for p in origin.tolist()]
    load, waiting, couriers = live.at(cells, hours, weather)
    kitchen = rng.poisson(0.35 * _demand(hours) * np.exp(orders["pace"].to_numpy()))
    air = kilometres(origin, place)
    across = (origin[:, 0] < _RIVER) != (place[:, 0] < _RIVER)
    building = _of_cells(rng, place, 9, 0.3)
    express = orders["express"].to_numpy()
    log_minutes = np.stack(
        [
            np.log(np.where(express, 1.5, 3.5)) + 1.1 * np.log(0.35 + load),
            np.log(orders["cooking"].to_numpy()) + 0.06 * kitchen + 0.1 * np.log1p(load),
            np.log(
                2
                + building
                + air * np.where(express, 3.0, 4.2) * (1 + 0.3 * np.minimum(rain, 3) / 3)
                + 5 * across
            ),
        ],
        axis=1,
    )
    truth = DeliveryTruth(log_minutes)
    minutes = truth.sample(rng, 1, np.arange(n))[:, 0]
    # Couriers log some pickups late, so that a few are missing.
    minutes[rng.random(n) < 0.01, 1] = np.nan
    frame = orders.select(
        pl.format("o{}", "number").alias("order_id"),
        "user_id",
        "shop_id",
        pl.when("express").then(pl.lit("express")).otherwise(pl.lit("standard")).alias("service"),
        pl.col("category_name").alias("category"),
        "time",
        "period",
        "origin_latitude",
        "origin_longitude",
        "latitude",
        "longitude",
        pl.Series("open_orders", waiting.astype(np.float64)),
        pl.Series("free_couriers", couriers.astype(np.float64)),
        pl.Series("cooking", kitchen.astype(np.float64)),
        pl.Series("rain", rain),
        pl.Series("temperature", warmth),
        *(pl.Series(stage, minutes[:, i]) for i, stage in enumerate(STAGES)),
    ).with_columns(pl.col(STAGES).fill_nan(None))
    return frame, truth


def _shops(items: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Every item with the shop that cooks for it: its pace, and whether express couriers come."""
    shops = items.filter(pl.col("shop_id") == "").select("item_id", "category")
    n = len(shops)
    slow = rng.normal(0, 0.3, 64)[shops["category"].to_numpy() % 64]
    of_shop = shops.select(
        pl.col("item_id").alias("shop_id"),
        pl.Series("cooking", 11 * np.exp(slow + rng.normal(0, 0.25, n))),
        pl.Series("pace", rng.normal(0, 0.5, n)),
        pl.Series("express", rng.random(n) < 0.3),
    )
    return (
        items.with_columns(
            shop_id=pl.when(pl.col("shop_id") == "").then("item_id").otherwise("shop_id")
        )
        .select(
            "item_id",
            "shop_id",
            "category_name",
            pl.col("latitude").alias("origin_latitude"),
            pl.col("longitude").alias("origin_longitude"),
        )
        .join(of_shop, "shop_id", maintain_order="left")
    )


def _weather(rng: np.random.Generator, hours: float) -> Floats:
    """Rain in mm and degrees Celsius of each hour, shape [hours, 2]."""
    n = int(hours) + 2
    wet, rain = False, np.zeros(n)
    for hour, chance in enumerate(rng.random(n).tolist()):
        wet = chance < (0.85 if wet else 0.02)
        rain[hour] = rng.gamma(1.5, 1.2) if wet else 0.0
    warmth = 12 + 5 * np.sin((np.arange(n) % 24 - 9) / 24 * 2 * np.pi) + rng.normal(0, 1, n)
    return np.stack([rain, warmth - rain], axis=1)


def _demand(hours: Floats) -> Floats:
    return _DEMAND[hours.astype(np.int64) % 24]


class _Areas:
    """Couriers and orders of H3 cells, each ten minutes."""

    def __init__(self, rng: np.random.Generator, hours: float) -> None:
        self._rng = rng
        self._slots = int(hours * _HOUR_MS / _SLOT_MS) + 2

    def at(self, cells: list[str], hours: Floats, weather: Floats) -> tuple[Floats, Ints, Ints]:
        """How scarce couriers are, orders that wait and couriers that are free, of each order."""
        names, area = np.unique(np.array(cells), return_inverse=True)
        slot = (hours * _HOUR_MS / _SLOT_MS).astype(np.int64)
        hour = np.arange(self._slots) * _SLOT_MS // _HOUR_MS
        wet = 1 + 0.25 * np.minimum(weather[np.minimum(hour, len(weather) - 1), 0], 3)
        usual = _DEMAND[hour % 24] / 6 * wet
        surge = np.zeros((len(names), self._slots))
        for t in range(1, self._slots):
            surge[:, t] = 0.97 * surge[:, t - 1] + self._rng.normal(0, 0.09, len(names))
        load = usual[None, :] * np.exp(surge + self._rng.normal(0, 0.2, (len(names), 1)))
        waiting = self._rng.poisson(12 * load)
        free = self._rng.poisson(14 / (0.4 + load))
        return load[area, slot], waiting[area, slot], free[area, slot]


def _of_cells(rng: np.random.Generator, places: Floats, resolution: int, spread: float) -> Floats:
    """Minutes that each order's cell adds: hard or easy buildings."""
    cells = [h3.latlng_to_cell(*p, resolution) for p in places.tolist()]
    names, code = np.unique(np.array(cells), return_inverse=True)
    minutes: Floats = 3 * np.exp(rng.normal(0, 2 * spread, len(names)))[code]
    return minutes
