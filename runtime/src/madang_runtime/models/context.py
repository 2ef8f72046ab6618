"""The context features of a request: one definition for training and serving."""

import math
from dataclasses import dataclass

import h3.api.basic_int as h3
import numpy as np
from numpy.typing import NDArray

from madang_runtime.models.inputs import InputRows

CELL_RESOLUTION = 6
CELL_BUCKETS = 4096
_HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Clock:
    """How local time follows from a place.

    Attributes:
        utc_offset_hours: the offset of a city; None takes the sun's (longitude / 15°), for data
            from all over the world.
    """

    utc_offset_hours: float | None

    def local_hour(self, time_ms: int, longitude: float) -> int:
        """Hours since the epoch in local time."""
        offset = round(longitude / 15) if self.utc_offset_hours is None else self.utc_offset_hours
        return math.floor(time_ms / _HOUR_MS + offset)

    def local_hours(
        self, time_ms: NDArray[np.int64], longitude: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """`local_hour` of n times and places."""
        pairs = zip(time_ms.tolist(), longitude.tolist(), strict=True)
        return np.array([self.local_hour(*pair) for pair in pairs], np.int64)


def cell_bucket(latitude: float, longitude: float) -> int:
    """Bucket from 1 to CELL_BUCKETS - 1 of the H3 cell (about 36 km²) of a point."""
    # 3 bits a level follow down to level 15; those below the resolution are all ones.
    cell: int = h3.latlng_to_cell(latitude, longitude, CELL_RESOLUTION)
    folded = cell >> (45 - 3 * CELL_RESOLUTION)
    return (folded * 0x9E3779B97F4A7C15 % 2**64 >> 40) % (CELL_BUCKETS - 1) + 1


def context_row(time_ms: int, latitude: float, longitude: float, clock: Clock) -> InputRows:
    """The context of one request: `context_rows` for n = 1."""
    codes = _codes(time_ms, latitude, longitude, clock)
    return InputRows(np.array([codes], np.int64), np.array([[latitude, longitude]], np.float32))


def context_rows(
    time_ms: NDArray[np.int64],
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    clock: Clock,
) -> InputRows:
    """The context of n requests.

    Returns:
        ints of shape [n, 3]: hour of the day, weekday from Thursday = 0, cell bucket; floats of
        shape [n, 2]: latitude and longitude in degrees.
    """
    rows = zip(time_ms.tolist(), latitude.tolist(), longitude.tolist(), strict=True)
    codes = np.array([_codes(*row, clock) for row in rows], np.int64).reshape(-1, 3)
    return InputRows(codes, np.stack([latitude, longitude], axis=1).astype(np.float32))


def _codes(time_ms: int, latitude: float, longitude: float, clock: Clock) -> tuple[int, int, int]:
    hour = clock.local_hour(time_ms, longitude)
    return hour % 24, hour // 24 % 7, cell_bucket(latitude, longitude)
