"""What the user ordered before."""

import numpy as np

from madang_candidate.query import Query, Ranked
from madang_runtime.models.inputs import columns_of


class AgainSource:
    """The user's top items of the feature store; scores are their counts."""

    name = "again"
    personal = True

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def propose(self, query: Query) -> Ranked:
        """See `Source`."""
        view, features = query.bundle.user_inputs.view, query.bundle.manifest.features
        codes = query.user.ints[0, columns_of(features, view, "INT64")["top_items"]]
        counts = query.user.floats[0, columns_of(features, view, "FLOAT32")["top_item_counts"]]
        rows = query.index.rows_of_codes(codes)
        kept = np.isin(rows, query.allowed)
        return Ranked(rows[kept][: query.limit], counts[kept][: query.limit])
