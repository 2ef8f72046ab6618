"""What is popular where and when."""

from collections.abc import Mapping, Sequence

import faiss
import h3
import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]
Places = NDArray[np.float64]

SLOTS = 5
AREA_RESOLUTION = 6
_EVERYWHERE = np.uint64(0)
_KEPT_PER_LIST = 200


class Popularity:
    """Lists by area (H3 cell of resolution 6, and 0 for everywhere) and time slot.

    Args:
        columns: `keys` (u8, sorted: an area whose last three bits are the slot), `starts`,
            `items` (i8 rows) and `counts` (f4).
        time_slots: the slot of each hour of the day, 24 numbers.
    """

    def __init__(
        self, columns: Mapping[str, NDArray[np.generic]], time_slots: Sequence[int]
    ) -> None:
        self._keys = columns["keys"].astype(np.uint64)
        self._starts = columns["starts"].astype(np.int64)
        self._items = columns["items"].astype(np.int64)
        self._counts = columns["counts"].astype(np.float32)
        self._slots = list(time_slots)

    def lists(self, latitude: float, longitude: float, hour: int) -> list[tuple[Rows, Floats]]:
        """Rows and counts at the place and hour, most popular first: the area's, then all's."""
        slot = self._slots[hour]
        found = []
        for area in (_area(latitude, longitude), _EVERYWHERE):
            key = _key(area, slot)
            at = int(np.searchsorted(self._keys, key))
            if at < len(self._keys) and self._keys[at] == key:
                span = slice(self._starts[at], self._starts[at + 1])
                found.append((self._items[span], self._counts[span]))
        return found


def count_popularity(
    rows: Rows, places: Places, hours: Rows, weight: Floats, time_slots: Sequence[int]
) -> dict[str, NDArray[np.generic]]:
    """Build the columns of `Popularity` from n actions at places (degrees, [n, 2]) and hours."""
    slots = np.array(time_slots, np.uint64)[hours]
    areas = np.array([_area(lat, lng) for lat, lng in places.tolist()], np.uint64)
    keys = np.concatenate([_key(areas, slots), _key(np.zeros_like(areas), slots)])
    table = np.stack([keys, np.concatenate([rows, rows]).astype(np.uint64)], axis=1)
    pairs, inverse = np.unique(table, axis=0, return_inverse=True)
    counts = np.bincount(inverse.ravel(), np.concatenate([weight, weight]), len(pairs))
    order = np.lexsort((-counts, pairs[:, 0]))
    pairs, counts = pairs[order], counts[order]
    rank = np.arange(len(pairs)) - np.searchsorted(pairs[:, 0], pairs[:, 0])
    pairs, counts = pairs[rank < _KEPT_PER_LIST], counts[rank < _KEPT_PER_LIST]
    keys, starts = np.unique(pairs[:, 0], return_index=True)
    return {
        "keys": keys,
        "starts": np.append(starts, len(pairs)).astype(np.int64),
        "items": pairs[:, 1].astype(np.int64),
        "counts": counts.astype(np.float32),
    }


def learn_time_slots(rows: Rows, hours: Rows, items: int) -> list[int]:
    """Cluster the hours of the day into SLOTS slots by what is ordered in them.

    Each hour is embedded by the singular vectors of the hour × item counts (square-rooted, rows of
    length 1), joined by its place on the clock, and grouped by k-means.
    """
    counts = np.zeros((24, items), np.float32)
    np.add.at(counts, (hours, rows), 1)
    profile = np.sqrt(counts)
    profile /= np.maximum(np.linalg.norm(profile, axis=1, keepdims=True), 1e-6)
    left, values, _ = np.linalg.svd(profile, full_matrices=False)
    angle = 2 * np.pi * np.arange(24) / 24
    clock = 0.7 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    embedded = np.concatenate([left[:, :8] * values[:8], clock], axis=1).astype(np.float32)
    kmeans = faiss.Kmeans(embedded.shape[1], SLOTS, seed=7, nredo=5, min_points_per_centroid=1)
    kmeans.train(embedded)
    _, slots = kmeans.index.search(embedded, 1)
    return [int(s) for s in slots[:, 0]]


def _area(latitude: float, longitude: float) -> np.uint64:
    return np.uint64(h3.str_to_int(h3.latlng_to_cell(latitude, longitude, AREA_RESOLUTION)))


def _key(area: NDArray[np.uint64] | np.uint64, slot: NDArray[np.uint64] | int) -> np.uint64:
    # A cell of resolution 6 ends in 27 one bits, of which three can carry the slot.
    return (area & ~np.uint64(7)) | np.uint64(slot)  # type: ignore[return-value]
