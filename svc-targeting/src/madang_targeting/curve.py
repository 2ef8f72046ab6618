"""Reach and response: what a segment of each size would bring."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Histogram:
    """Users by two scores, small enough to keep for any number of users.

    Scores are probabilities on a grid that is even in their logarithm.

    Attributes:
        counts: users of each cell, shape [bins, bins].
        response: the sum of what is expected of them, shape [bins, bins].
    """

    counts: Floats
    response: Floats


@dataclass(frozen=True)
class Cut:
    """Whom an OR of two scores takes: the first at least one bin, or the second at least another.

    Attributes:
        first, second: bins; the number of bins takes nobody.
        size: how many users it takes.
        response: what is expected of them in all.
    """

    first: int
    second: int
    size: float
    response: float


def bins_of(probability: Floats, bins: int, least: float = 1e-4) -> NDArray[np.int64]:
    """The bin of each probability, shape [n]."""
    position = np.log(np.maximum(probability, least) / least) / -np.log(least)
    found: NDArray[np.int64] = np.clip((position * bins).astype(np.int64), 0, bins - 1)
    return found


def best_cut(histogram: Histogram, size: float) -> Cut:
    """The OR that takes at least `size` users and of those the one of which most is expected a
    user; the whole audience when it is smaller.

    Of each first bin the smallest sufficient union is weighed, so that all there are take
    O(bins²).
    """
    bins = len(histogram.counts)
    best: Cut | None = None
    for first in range(bins + 1):
        # Union of rows ≥ first and, of the other rows, columns ≥ second, for every second.
        rest = histogram.counts[:first].sum(0), histogram.response[:first].sum(0)
        whole = histogram.counts[first:].sum(), histogram.response[first:].sum()
        sizes, responses = (
            w + np.concatenate([np.cumsum(r[::-1])[::-1], [0.0]])
            for w, r in zip(whole, rest, strict=True)
        )
        enough = np.flatnonzero(sizes >= min(size, histogram.counts.sum()))
        if len(enough):
            second = int(enough[-1])  # sizes fall with the bin
            cut = Cut(first, second, float(sizes[second]), float(responses[second]))
            if best is None or cut.response / cut.size > best.response / best.size:
                best = cut
    assert best
    return best


def reach_curve(probability: Floats, points: int = 50) -> tuple[NDArray[np.int64], Floats]:
    """Expected rate of the best users, by how many are told.

    Returns:
        sizes, rising to all, and the mean probability of so many best, shape [points] each.
    """
    ranked = np.sort(probability)[::-1]
    sizes = np.unique(np.linspace(1, len(ranked), points).astype(np.int64))
    return sizes, np.cumsum(ranked)[sizes - 1] / sizes
