"""Items near the user's vector."""

from madang_candidate.query import Query, Ranked


class TwoTowerSource:
    """Nearest allowed items by dot product; scores are cosines."""

    name = "two_tower"
    personal = True

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def propose(self, query: Query) -> Ranked:
        """See `Source`."""
        return Ranked(*query.index.search(query.user_vector, query.allowed, query.limit))
