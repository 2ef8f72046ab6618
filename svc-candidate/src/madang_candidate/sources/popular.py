"""What is popular at the place and time of day."""

import numpy as np

from madang_candidate.query import Query, Ranked


class PopularSource:
    """Orders counted by area and time slot, the area before the whole; scores are counts."""

    name = "popular"
    personal = False

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def propose(self, query: Query) -> Ranked:
        """See `Source`."""
        lists = query.bundle.popularity.lists(query.latitude, query.longitude, query.hour)
        if not lists:
            return Ranked(np.empty(0, np.int64), np.empty(0, np.float32))
        rows = query.index.current(np.concatenate([rows for rows, _ in lists]))
        scores = np.concatenate([counts for _, counts in lists])
        _, first = np.unique(rows, return_index=True)
        kept = np.sort(first)
        kept = kept[np.isin(rows[kept], query.allowed)][: query.limit]
        return Ranked(rows[kept], scores[kept])
