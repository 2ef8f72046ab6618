"""Lists made beforehand for segments of users, alike on every replica."""

from collections.abc import Sequence

import h3
import numpy as np
from numpy.typing import NDArray

from madang.candidate.v1 import candidate_pb2 as pb
from madang_candidate.index import ItemIndex
from madang_runtime.changelog.table import LogTable

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]

AREA_RESOLUTION = 6
EVERYWHERE = 0


def list_key(segment: str, area: int) -> str:
    """The key of a list in the log."""
    return f"{segment}@{area:x}"


class SegmentLists:
    """The lists by segment and area.

    Args:
        lists: by `list_key`.
    """

    def __init__(self, lists: LogTable[pb.SegmentList]) -> None:
        self._lists = lists

    def find(
        self, segments: Sequence[str], latitude: float, longitude: float, index: ItemIndex
    ) -> tuple[Rows, Floats]:
        """Rows and scores of the list of the most specific segment that has one: the area's, or
        else that of everywhere."""
        area = h3.str_to_int(h3.latlng_to_cell(latitude, longitude, AREA_RESOLUTION))
        for segment in segments:
            for key in (list_key(segment, area), list_key(segment, EVERYWHERE)):
                if found := self._lists.get(key):
                    rows = [index.row(item_id) for item_id in found.item_ids]
                    exists = np.array([row is not None for row in rows], bool)
                    scores = np.frombuffer(found.scores, "<f4")
                    return np.array([r for r in rows if r is not None], np.int64), scores[exists]
        return np.empty(0, np.int64), np.empty(0, np.float32)
