"""What the user's cohort likes, made beforehand."""

import numpy as np

from madang_candidate.lists import SegmentLists
from madang_candidate.query import Query, Ranked


class CohortSource:
    """The list of the user's most specific segment in the area; scores are the list's."""

    name = "cohort"
    personal = False

    def __init__(self, weight: float, lists: SegmentLists) -> None:
        self.weight = weight
        self._lists = lists

    def propose(self, query: Query) -> Ranked:
        """See `Source`."""
        place = query.latitude, query.longitude
        rows, scores = self._lists.find(query.segments, *place, query.index)
        kept = np.isin(rows, query.allowed)
        return Ranked(rows[kept][: query.limit], scores[kept][: query.limit])
