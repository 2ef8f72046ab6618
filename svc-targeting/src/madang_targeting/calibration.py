"""Probabilities that mean what they say, and how sure one can be of their means."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import beta

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Calibration:
    """A rising map from scores to probabilities (isotonic regression by pooled adjacent violators;
    Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability
    estimates", 2002), straight between its knots.

    Attributes:
        scores, probabilities: the knots, rising.
    """

    scores: NDArray[np.float64]
    probabilities: NDArray[np.float64]

    @classmethod
    def fit(cls, scores: Floats, outcomes: Floats) -> "Calibration":
        """From scores that were not learned from, and what became of them, shape [n] each."""
        order = np.argsort(scores, kind="stable")
        rising = isotonic_regression(outcomes[order].astype(np.float64))
        ends = rising.blocks
        middles = [scores[order][a:b].mean() for a, b in pairwise(ends)]
        # A block without any outcome is not impossible, only rare: it gets half of one.
        sizes, levels = np.diff(ends), rising.x[ends[:-1]]
        least = 0.5 / (sizes + 1)
        return cls(np.array(middles), np.clip(levels, least, 1 - least))

    def __call__(self, scores: Floats) -> NDArray[np.float64]:
        """Probabilities of scores, shape [n]."""
        return np.interp(scores, self.scores, self.probabilities)


def rate_interval(successes: float, trials: float, level: float = 0.9) -> tuple[float, float]:
    """Where a rate lies that gave so many successes (Jeffreys' interval; Brown, Cai and DasGupta,
    "Interval estimation for a binomial proportion", 2001)."""
    tail = (1 - level) / 2
    low = beta.ppf(tail, successes + 0.5, trials - successes + 0.5)
    high = beta.ppf(1 - tail, successes + 0.5, trials - successes + 0.5)
    return float(low) if successes > 0 else 0.0, float(high) if successes < trials else 1.0
