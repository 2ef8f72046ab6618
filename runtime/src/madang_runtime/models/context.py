"""The context features of a request: one definition for training and serving."""

from dataclasses import dataclass

import h3
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

    def local_hours(
        self, time_ms: NDArray[np.int64], longitude: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Hours since the epoch in local time, of the same shape as the arguments."""
        offset = (
            np.round(longitude / 15)
            if self.utc_offset_hours is None
            else np.full(len(longitude), self.utc_offset_hours)
        )
        hours: NDArray[np.int64] = np.floor(time_ms / _HOUR_MS + offset).astype(np.int64)
        return hours


def cell_buckets(
    latitude: NDArray[np.float64], longitude: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Buckets from 1 to CELL_BUCKETS - 1 of the H3 cells (about 36 km²) of n points."""
    cells = [
        h3.str_to_int(h3.latlng_to_cell(lat, lng, CELL_RESOLUTION))
        for lat, lng in zip(latitude.tolist(), longitude.tolist(), strict=True)
    ]
    # 3 bits a level follow down to level 15; those below the resolution are all ones.
    folded = np.array(cells, np.uint64) >> np.uint64(45 - 3 * CELL_RESOLUTION)
    buckets: NDArray[np.int64] = (folded * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(40)).astype(
        np.int64
    ) % (CELL_BUCKETS - 1) + 1
    return buckets


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
    hours = clock.local_hours(time_ms, longitude)
    ints = np.stack([hours % 24, hours // 24 % 7, cell_buckets(latitude, longitude)], axis=1)
    floats = np.stack([latitude, longitude], axis=1).astype(np.float32)
    return InputRows(ints, floats)
