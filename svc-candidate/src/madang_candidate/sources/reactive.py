"""What the user's last actions suggest right now."""

import numpy as np

from madang_candidate.fusion import fuse
from madang_candidate.query import Query, Ranked

# The last action counts in full, each one before it half of the next.
_DECAY = 0.5


class ReactiveSource:
    """Each of the last actions ranks the two-tower's candidates by likeness to the item acted on;
    the rankings are merged by weighted reciprocal ranks, recent actions weighing more."""

    name = "reactive"
    personal = True

    def __init__(self, weight: float, rrf_k: float) -> None:
        self.weight = weight
        self._rrf_k = rrf_k

    def propose(self, query: Query) -> Ranked:
        """See `Source`."""
        if not len(query.recent):
            return Ranked(np.empty(0, np.int64), np.empty(0, np.float32))
        index = query.index
        pool, _ = index.search(query.user_vector, query.allowed, query.limit)
        likeness = index.vectors(pool) @ index.vectors(query.recent).T
        rankings = [
            pool[np.argsort(-likeness[:, a], kind="stable")] for a in range(len(query.recent))
        ]
        rows, scores = fuse(rankings, _DECAY ** np.arange(len(rankings)), self._rrf_k)
        return Ranked(rows, scores)
