"""Segments of users, by features that say which one a user is in."""

from collections.abc import Sequence

import numpy as np

from madang.common.v1 import tensor_pb2
from madang.feature.v1 import feature_store_pb2
from madang_runtime.columns import block_columns

EVERYBODY = "all"
"""The segment of every user."""


class SegmentBy:
    """Names the segments of users: the most specific first, everybody last.

    Args:
        features: INT64 features as "view.feature", all of one view, most specific first, such as
            ["user_segments.cohort", "user_segments.demographic"]; none: everybody is alike.

    Attributes:
        view: that they are of; "" without any.

    Raises:
        ValueError: the features are of several views, or not named so.
    """

    def __init__(self, features: Sequence[str]) -> None:
        views = {f.partition(".")[0] for f in features}
        if len(views) > 1 or any(f.count(".") != 1 for f in features):
            raise ValueError(f"segments must be features view.feature of one view: {features}")
        self.view = next(iter(views), "")
        self._names = [f.partition(".")[2] for f in features]

    def lookups(self, user_ids: Sequence[str]) -> list[feature_store_pb2.ViewLookup]:
        """What to ask the feature store; nothing when there are no features."""
        if not self._names:
            return []
        return [
            feature_store_pb2.ViewLookup(view=self.view, features=self._names, entity_ids=user_ids)
        ]

    def of(self, rows: Sequence[feature_store_pb2.ViewRows], users: int) -> list[list[str]]:
        """The segments of each user, from the answer to `lookups`.

        Only features with a value count: a newcomer without any is in EVERYBODY alone.
        """
        named: list[list[str]] = [[] for _ in range(users)]
        if rows:
            (block,) = rows[0].blocks
            values, _, statuses = block_columns(block, users, self.view)
            at = [list(block.features).index(name) for name in self._names]
            present = statuses[:, at] == tensor_pb2.FEATURE_STATUS_PRESENT
            for user, column in zip(*np.nonzero(present), strict=True):
                value = int(values[user, at[column]])
                named[user].append(f"{self._names[column]}={value}")
        return [[*names, EVERYBODY] for names in named]
