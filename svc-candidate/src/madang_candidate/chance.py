"""Chance that every replica agrees on."""

from collections.abc import Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Seeds = NDArray[np.uint64]


def seeds(item_ids: Sequence[str]) -> Seeds:
    """A number for each item."""
    return np.array([crc32(i.encode()) for i in item_ids], np.uint64)


def chances(of_items: Seeds, seed: int) -> NDArray[np.float32]:
    """Numbers in [0, 1], one an item, as if drawn by chance (the finaliser of splitmix64)."""
    mixed = of_items ^ np.uint64(seed)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) / 2.0**64).astype(np.float32)
