"""What the surface's bandit should try: the arms that pass its filter."""

import numpy as np

from madang_candidate.arms import ArmFilter
from madang_candidate.query import Query, Ranked


class ExploreSource:
    """Arms by lower confidence bound, then fresh ones by chance; scores are the bounds."""

    name = "explore"
    personal = False

    def __init__(self, weight: float, arms: ArmFilter) -> None:
        self.weight = weight
        self._arms = arms

    def propose(self, query: Query) -> Ranked:
        """See `Source`."""
        arms = self._arms.arms(query.surface, query.index) if query.surface else None
        if arms is None:
            return Ranked(np.empty(0, np.int64), np.empty(0, np.float32))
        rows, bounds = arms.propose(query.segments, query.allowed)
        return Ranked(rows[: query.limit], bounds[: query.limit])
