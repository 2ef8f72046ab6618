"""How good a ranking is, and whether one is better than another."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A mean, and what it lies between for 95 in 100."""

    mean: float
    low: float
    high: float


def ndcg(ranked: Sequence[int], relevant: Mapping[int, int], k: int = 10) -> float:
    """nDCG@k with gains 2^grade - 1 (Burges et al. 2005).

    Args:
        ranked: documents, best first.
        relevant: the grade of each relevant one, 1 and up.
    """
    gains = [2.0 ** relevant.get(document, 0) - 1 for document in ranked[:k]]
    ideal = sorted((2.0**grade - 1 for grade in relevant.values()), reverse=True)[:k]
    return _discounted(gains) / _discounted(ideal) if ideal else 0.0


def recall(ranked: Sequence[int], relevant: Mapping[int, int], k: int = 10) -> float:
    """Share of the relevant documents that are among the first k."""
    return len({*ranked[:k]} & relevant.keys()) / len(relevant) if relevant else 0.0


def bootstrap(differences: Floats, draws: int = 10_000, seed: int = 0) -> Interval:
    """The mean of differences between two rankings of the same queries, by paired bootstrap."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(differences), (draws, len(differences)))
    low, high = np.quantile(differences[drawn].mean(1), [0.025, 0.975])
    return Interval(float(differences.mean()), float(low), float(high))


def _discounted(gains: Sequence[float]) -> float:
    return float(sum(gain / np.log2(2 + place) for place, gain in enumerate(gains)))
