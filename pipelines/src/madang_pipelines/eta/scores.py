"""How good distributions of minutes are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from madang_eta.distribution import cumulative, means, mode_windows, quantiles

Floats = NDArray[np.floating]
_FINE = 4
INTERVALS = (0.5, 0.8, 0.9)


@dataclass(frozen=True)
class EtaScores:
    """Means over orders; times in seconds.

    Attributes:
        name: whose.
        crps: continuous ranked probability score of each order, shape [n].
        mae: of the median. rmse: of the mean.
        coverage, width: of the central intervals of INTERVALS.
        window: share that arrived within the 10-minute window shown, and its mean probability.
        pit: probability integral transform of each order, shape [n].
    """

    name: str
    crps: Floats
    mae: float
    rmse: float
    coverage: tuple[float, ...]
    width: tuple[float, ...]
    window: tuple[float, float]
    pit: Floats


def score(name: str, pmf: Floats, minutes: Floats, mean: Floats | None = None) -> EtaScores:
    """Judge distributions by what it took.

    Args:
        name: whose they are.
        pmf: shape [n, K], rows sum to 1.
        minutes: shape [n].
        mean: predicted, where that is not the distribution's, shape [n].
    """
    pmf = pmf.astype(np.float64)
    ends = sorted(level for c in INTERVALS for level in ((1 - c) / 2, (1 + c) / 2))
    found = quantiles(pmf, np.array([0.5, *ends]))
    by_level = dict(zip([0.5, *ends], found.T, strict=True))
    intervals = [(by_level[(1 - c) / 2], by_level[(1 + c) / 2]) for c in INTERVALS]
    shown = mode_windows(pmf, 10)
    hit = (minutes >= shown.start) & (minutes < shown.end)
    mean = means(pmf) if mean is None else mean
    return EtaScores(
        name,
        crps(pmf, minutes) * 60,
        float(np.abs(by_level[0.5] - minutes).mean() * 60),
        float(np.sqrt(((mean - minutes) ** 2).mean()) * 60),
        tuple(float(((minutes >= a) & (minutes <= b)).mean()) for a, b in intervals),
        tuple(float((b - a).mean() * 60) for a, b in intervals),
        (float(hit.mean()), float(shown.probability.mean())),
        pit(pmf, minutes),
    )


def crps(pmf: Floats, minutes: Floats) -> Floats:
    """∫ (F(t) - 1{y ≤ t})² dt of each row, in minutes, on a grid of quarters (Matheson and Winkler,
    "Scoring rules for continuous probability distributions", 1976). What lies beyond the last
    minute counts as far as y does."""
    width = pmf.shape[1]
    below = cumulative(pmf)
    total: Floats = np.maximum(minutes - width, 0.0)  # there F is 1
    for part in range(_FINE):
        share = (part + 0.5) / _FINE
        at = below[:, :-1] * (1 - share) + below[:, 1:] * share
        over = minutes[:, None] <= np.arange(width) + share
        total += ((at - over) ** 2).sum(1) / _FINE
    return total


def pit(pmf: Floats, minutes: Floats) -> Floats:
    """P(T ≤ y) of each row: even in [0, 1] when distributions are right (Dawid, 1984)."""
    below, rows = cumulative(pmf), np.arange(len(pmf))
    at = np.clip(minutes, 0, pmf.shape[1] - 1e-9)
    low = at.astype(np.int64)
    found: Floats = below[rows, low] + (at - low) * pmf[rows, low]
    return found


def paired(a: EtaScores, b: EtaScores, seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """95 % interval of the difference of mean CRPS a - b, by bootstrap over orders."""
    rng = np.random.default_rng(seed)
    apart = a.crps - b.crps
    sums = np.array([apart[rng.integers(0, len(apart), len(apart))].mean() for _ in range(draws)])
    low, high = np.quantile(sums, [0.025, 0.975])
    return float(low), float(high)
