"""Weighted reciprocal rank fusion."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]


def fuse(
    rankings: Sequence[Rows], weights: Sequence[float] | NDArray[np.floating], k: float
) -> tuple[Rows, Floats]:
    """Merge rankings of rows: score = Σ weight / (k + rank), rank from 1.

    Source: Cormack, Clarke, Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual
    rank learning methods", SIGIR 2009.

    Returns:
        all rows, best first (equal scores by row), and their scores.
    """
    rows = np.concatenate(rankings) if rankings else np.empty(0, np.int64)
    gains = [w / (k + 1 + np.arange(len(r))) for r, w in zip(rankings, weights, strict=True)]
    found, inverse = np.unique(rows, return_inverse=True)
    scores = np.bincount(inverse, np.concatenate(gains), len(found)) if len(rows) else np.empty(0)
    order = np.argsort(-scores, kind="stable")
    return found[order], scores[order].astype(np.float32)
