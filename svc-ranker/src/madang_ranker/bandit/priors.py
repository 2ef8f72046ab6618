"""The priors of the bandit's Beta posteriors. Axis 0 is successes (α) and failures (β)."""

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]


def surface_prior(prior: Counts, earned: Counts) -> Counts:
    """The prior of an arm that nobody saw: as configured, but with the surface's own mean where
    that is higher, or else whatever was seen would look better than what was not.

    Args:
        prior: α and β as configured, shape [2, ...].
        earned: the surface's successes and failures, shape [2, ...].
    """
    total = prior + earned
    failures = np.minimum(prior[1], prior[0] * total[1] / total[0])
    return np.stack(np.broadcast_arrays(prior[0], failures))


def segment_prior(everybody: Counts, pooling: float) -> Counts:
    """The prior of an arm in a segment: everybody's mean, worth as many rewards as everybody gave
    it and at most `pooling`. A segment with few counts leans on all, and most so where all know an
    arm to be poor.

    Args:
        everybody: α and β of everybody's posterior of each arm, shape [2, ...].
        pooling: in rewards.
    """
    worth = np.minimum(pooling, everybody[0])
    return np.stack([worth, worth * everybody[1] / everybody[0]])
