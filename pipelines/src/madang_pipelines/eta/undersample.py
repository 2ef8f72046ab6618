"""Keeps a long history affordable: of older days fewer orders, which then count more."""

import hashlib
from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray


def undersample(
    order_ids: pl.Series, ages: NDArray[np.int64], shares: Mapping[int, float]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which orders to keep, by a hash of their ids, and what each then stands for.

    Args:
        order_ids: n ids; the same order is always kept or never.
        ages: days, or other periods, since each was placed, shape [n].
        shares: from an age on, the share to keep, in (0, 1]; 1 where nothing is said.

    Returns:
        kept, shape [n]; and weights 1 / share, shape [n], so that weighted sums estimate those of
        all orders without bias (Horvitz and Thompson, 1952).
    """
    if any(not 0 < share <= 1 for share in shares.values()):
        raise ValueError("shares must be within (0, 1]")
    share = np.ones(len(ages))
    for age in sorted(shares):
        share[ages >= age] = shares[age]
    digests = (hashlib.blake2b(i.encode(), digest_size=8).digest() for i in order_ids.to_list())
    draw = np.array([int.from_bytes(d, "big") for d in digests], np.float64) / 2**64
    return draw < share, 1 / share
