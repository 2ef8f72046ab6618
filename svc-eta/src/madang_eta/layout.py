"""What the stages' models read of an order: one definition for training and serving."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, field_validator

from madang_eta.orders import Floats, Orders
from madang_eta.patterns import MAX_STAGES, VIEW, check_pattern
from madang_runtime.models.context import Clock
from madang_runtime.models.manifest import FeatureRef

AREA_VIEW, SHOP_VIEW, AREA_RESOLUTION = "eta_area", "eta_shop", 6
"""Live state of an H3 cell in which orders are picked up, and of a shop."""
Horizon = Literal["all", "week", "day"]
_CLOCK = ("hour_sin", "hour_cos", "hour", "weekday_sin", "weekday_cos", "weekend", "peak")
_TRIP = ("km", "log_km", "air_km", "detour", "north_km", "east_km")
_PLACES = ("origin_latitude", "origin_longitude", "place_latitude", "place_longitude")
_PEAKS = (11, 12, 17, 18, 19)


class Layout(BaseModel):
    """The columns of a model's input.

    Attributes:
        stages: how many there are.
        line: minutes of each stage as a + b · km, what patterns deviate from, shape [stages, 2].
        typical: how far from the line each stage usually is, in minutes.
        patterns: whose means are read.
        horizons: how far back means reach.
        live: features of the live views that are read.
        numbers: names of what is read of an order beside.
        clock: how local time follows.
    """

    model_config = ConfigDict(frozen=True)

    stages: int
    line: tuple[tuple[float, float], ...]
    typical: tuple[float, ...]
    patterns: tuple[str, ...]
    horizons: tuple[Horizon, ...]
    live: tuple[FeatureRef, ...]
    numbers: tuple[str, ...]
    clock: Clock

    @field_validator("patterns")
    @classmethod
    def _known(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(check_pattern, patterns))

    def pattern_features(self) -> list[FeatureRef]:
        """What is read of each pattern, in the view's order."""
        found: list[tuple[str, int]] = []
        for horizon in self.horizons:
            means = ("residual", "ratio", "spread") if horizon == "all" else ("residual",)
            found += [(f"{horizon}_{mean}", MAX_STAGES) for mean in means]
            found.append((f"{horizon}_seen", 1))
        return [FeatureRef(view=VIEW, name=n, dtype="FLOAT32", dim=dim) for n, dim in found]

    def features(self) -> list[FeatureRef]:
        """All features of the store that are read."""
        return [*self.pattern_features(), *self.live]

    def names(self) -> list[str]:
        """The input's columns."""
        means = [
            f"{pattern}.{ref.name}" + (f"[{s}]" if ref.dim > 1 else "")
            for pattern in self.patterns
            for ref in self.pattern_features()
            for s in range(min(ref.dim, self.stages))
        ]
        lines = [f"line[{s}]" for s in range(self.stages)]
        live = [f"{ref.view}.{ref.name}" for ref in self.live]
        return [*_CLOCK, *_TRIP, *_PLACES, *lines, *means, *live, *self.numbers]

    def lines(self, orders: Orders) -> Floats:
        """Minutes of each stage by distance alone, shape [n, stages]."""
        slopes = np.array(self.line)
        minutes: Floats = np.maximum(slopes[:, 0] + distances(orders)[:, None] * slopes[:, 1], 0.5)
        return minutes

    def local_hours(self, orders: Orders) -> NDArray[np.int64]:
        """Local hours since the epoch, shape [n]."""
        if self.clock.utc_offset_hours is not None:
            return (orders.time_ms + self._offset_ms()) // 3_600_000
        longitude = orders.origin.rows()[:, 1].astype(np.float64)
        return self.clock.local_hours(orders.time_ms, longitude)

    def columns(self, orders: Orders, means: Floats, live: Floats) -> NDArray[np.float32]:
        """The input of n orders.

        Args:
            orders: n orders.
            means: of the patterns, shape [n, patterns, pattern columns], NaN where there is none.
            live: of the live views, shape [n, live], NaN where there is none.

        Returns:
            shape [n, len(names())]; NaN where nothing is known.
        """
        wanted = [
            column
            for ref, start in _starts(self.pattern_features())
            for column in range(start, start + min(ref.dim, self.stages))
        ]
        read = np.nan_to_num(means[:, :, wanted]).reshape(len(orders), -1)
        nothing = np.full(len(orders), np.nan)
        numbers = [orders.numbers.get(name, nothing)[:, None] for name in self.numbers]
        parts = [self._clock(orders), _trip(orders), orders.origin.rows(), orders.place.rows()]
        return np.concatenate(
            [*parts, self.lines(orders), read, live, *numbers], axis=1, dtype=np.float32
        )

    def _offset_ms(self) -> int:
        """Of local time; that of the sun is whole hours."""
        return round((self.clock.utc_offset_hours or 0) * 3_600_000)

    def _clock(self, orders: Orders) -> Floats:
        hours = self.local_hours(orders)
        of_day = hours % 24 + (orders.time_ms + self._offset_ms()) % 3_600_000 / 3_600_000
        weekday = hours // 24 % 7  # from Thursday
        turn, week = 2 * np.pi * of_day / 24, 2 * np.pi * weekday / 7
        weekend, peak = np.isin(weekday, (2, 3)), np.isin(hours % 24, _PEAKS)
        parts = np.sin(turn), np.cos(turn), of_day, np.sin(week), np.cos(week), weekend, peak
        return np.stack(parts, axis=1).astype(np.float64)


def distances(orders: Orders) -> Floats:
    """Kilometres by road, or in the air where that is not known, shape [n]."""
    return np.where(
        np.isnan(orders.distance_km), np.hypot(*orders.kilometres()), orders.distance_km
    )


def _trip(orders: Orders) -> Floats:
    north, east = orders.kilometres()
    air, km = np.hypot(north, east), distances(orders)
    detour = np.clip(km / np.maximum(air, 0.5), 0, 10)
    return np.stack([km, np.log1p(km), air, detour, north, east], axis=1)


def _starts(refs: list[FeatureRef]) -> list[tuple[FeatureRef, int]]:
    ends = np.cumsum([ref.dim for ref in refs]).tolist()
    return [(ref, end - ref.dim) for ref, end in zip(refs, ends, strict=True)]
