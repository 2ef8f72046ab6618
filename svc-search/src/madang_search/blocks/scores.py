"""What of all that was found a user wants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from madang_search.blocks.queries import KnownQuery

Floats = NDArray[np.float64]

_RELEVANCE, _CLICKS = 5.0, 0.5
"""Weights beside the logarithms of probabilities, as `make quality-search` found them best."""
_UNSEEN = 0.005
"""Share of a category that nobody took yet."""
_LEAST = 1e-6
_FADING = 0.8


@dataclass(frozen=True)
class Pool:
    """n documents that may be shown.

    Attributes:
        ids, categories: n texts.
        relevance: scores of both methods in [0, 1], 0 of what was not found by the query, [n].
    """

    ids: Sequence[str]
    categories: Sequence[str]
    relevance: Floats


def general(pool: Pool, known: KnownQuery | None) -> Floats:
    """Log odds, up to a constant, that somebody wants each: relevance, the share of those who
    searched for it and took its category, and how often it was taken itself. Shape [n]."""
    scores: Floats = _RELEVANCE * pool.relevance
    if known:
        shares = [known.categories.get(category, 0.0) for category in pool.categories]
        taken = [known.documents.get(one, 0) for one in pool.ids]
        scores = scores + np.log(np.array(shares) + _UNSEEN) + _CLICKS * np.log1p(taken)
    return scores


def personal(pool: Pool, clicks: NDArray[np.float32], recent: Mapping[str, float]) -> Floats:
    """What to add for a user, shape [n].

    Args:
        clicks: P(click) of each, [n].
        recent: how much of each category they lately looked for.
    """
    lately = np.array([recent.get(category, 0.0) for category in pool.categories])
    taste: Floats = np.log(np.maximum(clicks, _LEAST)) + np.log1p(lately)
    return taste


def recent_categories(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """How much of each category somebody looked for: later steps count more, frequent ones add up.

    Args:
        steps: shares of categories of each, the latest first.
    """
    total: dict[str, float] = {}
    for at, shares in enumerate(steps):
        for category, share in shares.items():
            total[category] = total.get(category, 0.0) + share * _FADING**at
    return total


def probabilities(scores: Floats) -> Floats:
    """The softmax of scores, [n]."""
    odds: Floats = np.exp(scores - scores.max(initial=-np.inf))
    chances: Floats = odds / odds.sum()
    return chances
