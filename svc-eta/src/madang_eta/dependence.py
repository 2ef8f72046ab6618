"""The total of stages that depend on each other.

Each stage keeps its own distribution. What they have in common, such as a big order or a kitchen
that is behind, is one hidden factor z ~ N(0, 1): the normal score of stage i is
loadingᵢ · z + √(1 - loadingᵢ²) · noise (a one-factor Gaussian copula; Li, "On default correlation",
2000, and Vasicek's conditional form). Given z stages are independent, so the total is a convolution
for each z, averaged by Gauss-Hermite quadrature. With loadings 0 that is the plain convolution.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.special import ndtr, ndtri

from madang_eta.distribution import Floats, cumulative

_NODES = 7
_CHANCE = 3.0  # |t| below which a correlation is taken for one


@dataclass(frozen=True)
class Factor:
    """The hidden factor as points and weights; the weights sum to 1."""

    points: NDArray[np.float64]
    weights: NDArray[np.float64]


class StageDependence:
    """How stages hang together.

    Args:
        loadings: of each stage, in (-1, 1).
    """

    def __init__(self, loadings: Sequence[float]) -> None:
        self.loadings = np.asarray(loadings, np.float64)
        points, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        self._points, self._weights = points, weights / weights.sum()

    def prior(self) -> Factor:
        """The factor before anything is known; one point when no two stages have it in common."""
        if (self.loadings != 0).sum() < 2:
            return Factor(np.zeros(1), np.ones(1))
        return Factor(self._points, self._weights)

    def after(self, scores: dict[int, float]) -> Factor:
        """The factor once some stages are over.

        Args:
            scores: of each stage that is over, Φ⁻¹ of the probability that it took so long or less.
        """
        factor = self.prior()
        if len(factor.points) == 1 or not scores:
            return factor
        loading = self.loadings[list(scores)]
        noise = 1 - loading**2
        variance = 1 / (1 + (loading**2 / noise).sum())
        mean = variance * (loading * np.array(list(scores.values())) / noise).sum()
        return Factor(mean + np.sqrt(variance) * factor.points, factor.weights)

    def given(self, pmf: Floats, stage: int, factor: Factor) -> Floats:
        """A stage's distribution at each point of the factor, shape [points, n, K]."""
        loading = self.loadings[stage]
        if loading == 0 or len(factor.points) == 1:
            return np.broadcast_to(pmf, (len(factor.points), *pmf.shape))
        below = cumulative(pmf)[:, 1:-1]
        kind = pmf.dtype.type
        sure = kind(8 * np.finfo(pmf.dtype).eps)
        scores = ndtri(np.clip(below, sure, 1 - sure))
        spread = kind(1 / np.sqrt(1 - loading**2))
        moved = (factor.points * loading).astype(pmf.dtype)[:, None, None]
        conditional = np.empty((len(factor.points), *pmf.shape), pmf.dtype)
        inner = ndtr((scores[None] - moved) * spread)
        conditional[..., 0] = inner[..., 0]
        np.subtract(inner[..., 1:], inner[..., :-1], out=conditional[..., 1:-1])
        conditional[..., -1] = 1 - inner[..., -1]
        return conditional


def total(conditional: Sequence[Floats], weights: Floats) -> Floats:
    """The distribution of a sum of stages.

    Args:
        conditional: of each stage, shape [points, n, Kᵢ]: independent at each point.
        weights: of the points, shape [points], or [points, n] where they differ by row.

    Returns:
        shape [n, ΣKᵢ].
    """
    width = sum(c.shape[-1] for c in conditional)
    size = fft.next_fast_len(width, real=True)
    spectrum = fft.rfft(conditional[0], size)
    for other in conditional[1:]:
        spectrum *= fft.rfft(other, size)
    spectrum *= fft.rfft(_carry(len(conditional)).astype(spectrum.real.dtype), size)
    by_row = weights if weights.ndim == 2 else weights[:, None]
    mixed = (spectrum * by_row[..., None].astype(spectrum.real.dtype)).sum(0)
    found: Floats = np.maximum(fft.irfft(mixed, size)[:, :width], 0)
    found /= found.sum(1, keepdims=True)
    return found


def _carry(stages: int) -> NDArray[np.float64]:
    """Whole minutes that so many fractions of minutes add up to: how often 0, 1, … (the Eulerian
    numbers; Irwin and Hall, 1927)."""
    counts = np.ones(1)
    for n in range(2, stages + 1):
        k = np.arange(n)
        longer = np.append(counts, 0.0)
        shorter = np.append(0.0, counts)
        counts = (k + 1) * longer + (n - k) * shorter
    counts /= counts.sum()
    return counts


def fit_loadings(scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Loadings that give the measured correlations of stages back as well as one factor can.

    Args:
        scores: normal scores of the stages' times under their own distributions, shape [n, stages],
            without gaps.

    Returns:
        loadings, shape [stages], and the correlations, shape [stages, stages]. A stage whose
        correlations are all within chance has nothing in common with the others.
    """
    n, stages = scores.shape
    if stages == 1:
        return np.zeros(1), np.ones((1, 1))
    found = np.asarray(np.corrcoef(scores, rowvar=False))
    apart = ~np.eye(stages, dtype=bool)
    real = apart & (np.abs(found) * np.sqrt(n) >= _CHANCE)
    bound = np.flatnonzero(real.any(1))
    loadings = np.zeros(stages)
    if len(bound) == 2:
        both = np.clip(found[bound[0], bound[1]], -0.9, 0.9)
        loadings[bound] = np.sqrt(abs(both)) * np.array([1.0, np.sign(both)])
    elif len(bound) > 2:
        loadings[bound] = _principal_factor(found[np.ix_(bound, bound)])
    return loadings, found


def _principal_factor(correlations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Loadings on one factor: the diagonal is what the factor explains, found by iteration."""
    apart = ~np.eye(len(correlations), dtype=bool)
    shared = np.max(np.abs(np.where(apart, correlations, 0)), axis=1)
    loadings = np.zeros(len(correlations))
    for _ in range(200):
        values, vectors = np.linalg.eigh(np.where(apart, correlations, np.diag(shared)))
        loadings = np.sqrt(max(values[-1], 0.0)) * vectors[:, -1]
        shared = np.minimum(loadings**2, 0.81)
    signed: NDArray[np.float64] = np.clip(loadings * np.sign(loadings.sum() or 1.0), -0.9, 0.9)
    return signed
