"""Ads near the user in the context of the request."""

import numpy as np

from madang_candidate.query import Query, Ranked


class AdSource:
    """The allowed ads nearest to the vector of user and context; scores are cosines. Nothing when
    the version was not trained on ads."""

    name = "ads"
    personal = True

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def propose(self, query: Query) -> Ranked:
        """See `Source`."""
        networks, ads = query.bundle.ads, query.index.ads.among(query.allowed)
        if networks is None or not len(ads):
            return Ranked(np.empty(0, np.int64), np.empty(0, np.float32))
        vector = networks.query(query.user, query.context)
        return Ranked(*query.index.ads.search(vector, ads, query.limit))
