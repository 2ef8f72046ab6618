"""Half the width of 95 % intervals in closed form."""

import math

import numpy as np
from numpy.typing import NDArray

_NORMAL = 1.96


def auc_spread(auc: float, outcome: NDArray[np.bool_]) -> float:
    """Of the area under a ROC curve (Hanley and McNeil, "The meaning and use of the area under a
    ROC curve", Radiology 1982)."""
    yes, no = int(outcome.sum()), int((~outcome).sum())
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (yes - 1) * (q1 - auc**2) + (no - 1) * (q2 - auc**2)
    return _NORMAL * math.sqrt(max(variance, 0.0) / (yes * no))


def correlation_spread(correlation: float, n: int) -> float:
    """Of a correlation of n pairs, by Fisher's z; 0 for fewer than four."""
    return _NORMAL * (1 - correlation**2) / math.sqrt(n - 3) if n > 3 else 0.0
