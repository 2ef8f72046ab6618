"""What the user's last actions suggest right now."""

from collections.abc import Callable

import numpy as np

from madang_candidate.content.model import ContentModel
from madang_candidate.fusion import fuse
from madang_candidate.index import Floats, Rows, top
from madang_candidate.query import Query, Ranked
from madang_runtime.errors import MadangError

# The last action counts in full, each one before it half of the next.
_DECAY = 0.5
_ACTIONS = 3


class ReactiveSource:
    """Each of the last three actions ranks what may be shown, and the rankings are merged by
    weighted reciprocal ranks, recent actions weighing more. An action on an item ranks the
    two-tower's candidates by their likeness to it; a search ranks by what items sell and the
    query means.

    Args:
        weight: of the source.
        rrf_k: the constant of the fusion.
        content: gives the version of the content towers; raises MadangError where there is none.
    """

    name = "reactive"
    personal = True

    def __init__(self, weight: float, rrf_k: float, content: Callable[[], ContentModel]) -> None:
        self.weight = weight
        self._rrf_k = rrf_k
        self._content = content

    def propose(self, query: Query) -> Ranked:
        """See `Source`."""
        rankings: list[Rows] = []
        content = self._current()
        # Without content towers a search says nothing, and must not take an item's turn.
        telling = [one for one in query.recent if content or not isinstance(one, str)]
        if recent := [*dict.fromkeys(telling)][:_ACTIONS]:
            pool, _ = query.index.search(query.user_vector, query.allowed, query.limit)
            rankings = [
                _answering(query, pool, action, content)
                if content and isinstance(action, str)
                else _alike(query, pool, int(action))
                for action in recent
            ]
        if not any(map(len, rankings)):
            return Ranked(np.empty(0, np.int64), np.empty(0, np.float32))
        rows, scores = fuse(rankings, _DECAY ** np.arange(len(rankings)), self._rrf_k)
        return Ranked(rows, scores)

    def _current(self) -> ContentModel | None:
        try:
            return self._content()
        except MadangError:  # a mesh without content towers goes by items alone
            return None


def _answering(query: Query, pool: Rows, text: str, content: ContentModel) -> Rows:
    """What answers a search, of all that is allowed unless that is too much."""
    rows = query.allowed if len(query.allowed) <= query.index.exact_below else pool
    scores: Floats = content.vectors(query.index, rows) @ content.query(text)
    best = top(scores, query.limit)
    return rows[best[scores[best] > 0]]


def _alike(query: Query, pool: Rows, row: int) -> Rows:
    likeness = query.index.vectors(pool) @ query.index.vectors(np.array([row]))[0]
    return pool[np.argsort(-likeness, kind="stable")]
