"""Probabilities that mean what they say, and how sure one can be of their means."""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.special import expit, logit
from scipy.stats import beta, norm

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
        # Equal scores are one.
        steps, step, counts = np.unique(scores, return_inverse=True, return_counts=True)
        rates = np.bincount(step, outcomes.astype(np.float64)) / counts
        rising = isotonic_regression(rates, weights=counts)
        ends = rising.blocks
        middles = [np.average(steps[a:b], weights=counts[a:b]) for a, b in pairwise(ends)]
        # A block without any outcome is not impossible, only rare: it gets half of one.
        sizes, levels = np.add.reduceat(counts, ends[:-1]), rising.x[ends[:-1]]
        least = 0.5 / (sizes + 1)
        return cls(np.array(middles), np.clip(levels, least, 1 - least))

    def __call__(self, scores: Floats) -> NDArray[np.float64]:
        """Probabilities of scores, shape [n]."""
        return np.interp(scores, self.scores, self.probabilities)


class Interval(NamedTuple):
    """Where a rate will be, in nine cases of ten."""

    low: float
    high: float


def rate_interval(successes: float, trials: float, level: float = 0.9) -> Interval:
    """Where a rate lies that gave so many successes (Jeffreys' interval; Brown, Cai and DasGupta,
    "Interval estimation for a binomial proportion", 2001)."""
    tail = (1 - level) / 2
    low = beta.ppf(tail, successes + 0.5, trials - successes + 0.5)
    high = beta.ppf(1 - tail, successes + 0.5, trials - successes + 0.5)
    return Interval(
        float(low) if successes > 0 else 0.0, float(high) if successes < trials else 1.0
    )


def foretold(rate: float, users: float, spread: float, level: float = 0.9) -> Interval:
    """Where the rate of so many users will be, of which `rate` is expected: campaigns differ from
    what is expected of them by `spread`, and users by chance, both in log odds.

    Args:
        rate: expected, in [0, 1].
        users: who are told; of none nothing is said.
        spread: standard deviation between campaigns, see `campaign_spread`.
        level: how often it is within.
    """
    if users < 1 or not 0 < rate < 1:
        return Interval(rate, rate)
    deviation = np.sqrt(spread**2 + 1 / (users * rate * (1 - rate)))
    reach = norm.ppf((1 + level) / 2) * deviation
    return Interval(float(expit(logit(rate) - reach)), float(expit(logit(rate) + reach)))


def campaign_spread(expected: Floats, outcomes: Floats, campaigns: NDArray[np.integer]) -> float:
    """How far campaigns were from what had been expected of them, in log odds beyond what chance
    explains (the moment estimate of DerSimonian and Laird, "Meta-analysis in clinical trials",
    1986).

    Args:
        expected: probability of each send by a model that had not seen its campaign, shape [n].
        outcomes: what became of it, shape [n].
        campaigns: number of its campaign, from 0, shape [n].
    """
    trials = np.bincount(campaigns).astype(np.float64)
    seen = trials > 0
    trials = trials[seen]
    hoped = np.bincount(campaigns, expected)[seen] / trials
    came = (np.bincount(campaigns, outcomes)[seen] + 0.5) / (trials + 1)
    errors = logit(came) - logit(np.clip(hoped, 1e-6, 1 - 1e-6))
    weights = trials * came * (1 - came)
    if len(errors) < 2:
        return 0.0
    excess = (weights * errors**2).sum() - len(errors)
    return float(np.sqrt(max(excess / weights.sum(), 0.0)))
