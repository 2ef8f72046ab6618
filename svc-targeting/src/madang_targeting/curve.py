"""Reach and response: what a segment of each size would bring."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
_LEAST = 1e-4


@dataclass(frozen=True)
class Histogram:
    """Users by two scores, small enough to keep for any number of users.

    Scores are probabilities on a grid that is even in their logarithm.

    Attributes:
        counts: users of each cell, shape [bins, bins].
        expected: the sums of what is expected of them, outcomes of the goal first,
            shape [outcomes, bins, bins].
    """

    counts: Floats
    expected: Floats


@dataclass(frozen=True)
class Cut:
    """Whom an OR of two scores takes: the first at least one bin, or the second at least another.

    Attributes:
        first, second: bins; the number of bins takes nobody.
        size: how many users it takes.
        expected: outcomes of them in all, the goal's first, shape [outcomes].
    """

    first: int
    second: int
    size: float
    expected: Floats


class Unions:
    """Every OR of the two scores of a histogram: O(bins²) once, then each question O(bins²).

    Args:
        histogram: of an audience.
    """

    def __init__(self, histogram: Histogram) -> None:
        self._sizes = _unions(histogram.counts)
        self._expected = np.stack([_unions(e) for e in histogram.expected])
        self._rates = np.divide(
            self._expected[0],
            self._sizes,
            out=np.zeros_like(self._sizes),
            where=self._sizes > 0.5,
        )

    @property
    def everybody(self) -> Cut:
        """The cut that takes all."""
        return self._cut(0)

    def best(self, size: float) -> Cut:
        """The OR that takes at least `size` users and of those the one of which most is expected a
        user; the whole audience when it is smaller."""
        enough = self._sizes >= min(size, self._sizes[0, 0]) - 0.5
        return self._cut(int(np.argmax(np.where(enough, self._rates, -1.0))))

    def largest(self, least_rate: float) -> Cut:
        """The largest OR of which at least such a rate is expected; nobody when there is none."""
        good = (self._rates >= least_rate) & (self._sizes > 0.5)
        return self._cut(int(np.argmax(np.where(good, self._sizes, -1.0))) if good.any() else -1)

    def curve(self, points: int) -> list[Cut]:
        """The best ORs of at least so many users, for sizes that rise evenly to everybody."""
        order = np.argsort(-self._sizes, axis=None, kind="stable")
        sizes, rates = self._sizes.ravel()[order], self._rates.ravel()[order]
        # Of the ORs down to each size the best so far.
        leads = np.maximum.accumulate(rates)
        best = np.maximum.accumulate(np.where(rates >= leads, np.arange(len(rates)), 0))
        if sizes[0] < 0.5:
            return []
        wanted = np.unique(np.ceil(np.linspace(0, sizes[0], points + 1)[1:]))
        at = np.searchsorted(-sizes, -(wanted - 0.5), side="right") - 1
        cuts = [self._cut(int(order[best[i]])) for i in at.tolist() if i >= 0]
        return [
            c
            for c, after in zip(cuts, [*cuts[1:], None], strict=True)
            if after is None or c.size < after.size
        ]

    def _cut(self, at: int) -> Cut:
        first, second = (int(i) for i in np.unravel_index(at % self._sizes.size, self._sizes.shape))
        size = max(float(self._sizes[first, second]), 0.0)
        return Cut(first, second, size, np.maximum(self._expected[:, first, second], 0.0))


def _unions(cells: Floats) -> NDArray[np.float64]:
    """Of each OR the sum: all but the rows below the first and columns below the second."""
    below = np.zeros(np.add(cells.shape, 1))
    below[1:, 1:] = cells.cumsum(0).cumsum(1)
    unions: NDArray[np.float64] = below[-1, -1] - below
    return unions


def bins_of(probability: Floats, bins: int) -> NDArray[np.int64]:
    """The bin of each probability, shape [n]."""
    position = np.log(np.maximum(probability, _LEAST) / _LEAST) / -np.log(_LEAST)
    found: NDArray[np.int64] = np.clip((position * bins).astype(np.int64), 0, bins - 1)
    return found
