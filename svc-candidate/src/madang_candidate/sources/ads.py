"""Ads near the user in the context of the request."""

import numpy as np

from madang.common.v1 import place_pb2
from madang_candidate.query import Query, Ranked


class AdSource:
    """The allowed ads nearest to the vector of user and context, or to the user's among all items
    when the version was not trained on ads; scores are cosines."""

    name = "ads"
    personal = True

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def propose(self, query: Query) -> Ranked:
        """See `Source`."""
        ads = query.allowed[query.index.kinds[query.allowed] == place_pb2.ITEM_KIND_AD]
        if not len(ads):
            return Ranked(ads, np.empty(0, np.float32))
        networks = query.bundle.ads
        if networks is None:
            return Ranked(*query.index.search(query.user_vector, ads, query.limit))
        vector = networks.query(query.user, query.context)
        return Ranked(*query.index.ads.search(vector, ads, query.limit))
