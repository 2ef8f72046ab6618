"""Streams the members of segments."""

import base64
import binascii
from collections.abc import Iterator

import numpy as np

from madang.targeting.v1 import targeting_pb2 as pb
from madang.targeting.v1.segment_record_pb2 import SegmentMembers
from madang_runtime.errors import Code, MadangError, invalid, reason
from madang_targeting.audience import GetAudience
from madang_targeting.members import Members
from madang_targeting.segment_store import SegmentStore, done_segment, segment_not_found

_AT_ONCE = 10_000
_PARTS = {
    pb.MEMBER_PART_UNSPECIFIED: "main",
    pb.MEMBER_PART_MAIN: "main",
    pb.MEMBER_PART_SAMPLE: "sample",
    pb.MEMBER_PART_HELD_OUT: "held_out",
}


class MemberLister:
    """The domain of ListMembers.

    Args:
        segments: that there are.
        audience: gives a version.
    """

    def __init__(self, segments: SegmentStore, audience: GetAudience) -> None:
        self._segments, self._audience = segments, audience

    def stream(self, request: pb.ListMembersRequest) -> Iterator[pb.ListMembersResponse]:
        """Answer ListMembers. Raises: MadangError, as the proto says."""
        if request.part not in _PARTS:
            raise invalid("part", f"is {request.part}, must be one of {sorted(_PARTS)}")
        segment = done_segment(self._segments, request.segment_id)
        packed = self._segments.members(request.segment_id)
        if packed is None:
            raise segment_not_found(request.segment_id)
        # A segment that was deleted and made again is another.
        made = segment.operation.end_time.ToMilliseconds()
        part = _PARTS[request.part]
        after = _row_of(request.page_token, f"{request.segment_id}/{made}/{part}")
        rows = Members.unpack(getattr(SegmentMembers.FromString(packed), part)).rows()
        audience = self._audience(segment.result.audience_version)
        for at in range(int(np.searchsorted(rows, after)), len(rows), _AT_ONCE):
            own = rows[at : at + _AT_ONCE]
            text = f"{int(own[-1]) + 1} {request.segment_id}/{made}/{part}"
            yield pb.ListMembersResponse(
                user_ids=audience.ids(own),
                page_token=base64.urlsafe_b64encode(text.encode()).decode(),
            )


def _row_of(page_token: str, of: str) -> int:
    """The row to go on from."""
    if not page_token:
        return 0
    try:
        row, _, given = base64.b64decode(page_token, b"-_", validate=True).decode().partition(" ")
        if given == of:
            return int(row)
    except (ValueError, binascii.Error):
        pass
    raise MadangError(
        Code.INVALID_ARGUMENT,
        reason.ERROR_REASON_PAGE_TOKEN_INVALID,
        "page_token: is not one of this part of the segment",
        field="page_token",
    )
