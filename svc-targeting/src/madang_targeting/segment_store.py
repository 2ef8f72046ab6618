"""Where segments and their operations are kept, so that every replica sees the same."""

import secrets
from typing import NamedTuple, Protocol

from madang.targeting.v1 import targeting_pb2 as pb
from madang.targeting.v1.segment_record_pb2 import SegmentRecord
from madang_runtime.errors import Code, MadangError, reason

OPEN = (pb.OPERATION_STATE_PENDING, pb.OPERATION_STATE_RUNNING)
"""States of operations that somebody must work on."""


class Kept(NamedTuple):
    """A record and which of its versions this is, see `next_version`."""

    record: SegmentRecord
    version: int


def next_version(seen: int) -> int:
    """The version after one. The first is drawn by chance: whoever still holds a segment that was
    deleted does not take another of its id for the same."""
    return seen + 1 if seen else secrets.randbits(48) + 1


class SegmentStore(Protocol):
    """Versioned records: each change says which version it saw, and fails when that has changed.

    `svc-targeting/tests/test_stores.py` is the suite of all. Every method raises MadangError
    STORE_UNAVAILABLE.
    """

    def get(self, segment_id: str) -> Kept | None:
        """A segment."""

    def put(self, record: SegmentRecord, seen: int, members: bytes | None = None) -> bool:
        """Replace the version that was seen, 0 where there was none; with the segment's members,
        once it has them. Whether it was still that."""

    def delete(self, segment_id: str) -> bool:
        """Forget a segment and its members. Whether there was one."""

    def page(self, after: str, limit: int) -> list[Kept]:
        """Segments by their ids, behind one."""

    def open_ids(self) -> list[str]:
        """Segments whose operation is not over, those that were asked for first before others."""

    def members(self, segment_id: str) -> bytes | None:
        """The packed members of a segment."""

    def close(self) -> None:
        """Close connections."""


def done_segment(segments: SegmentStore, segment_id: str) -> pb.Segment:
    """A segment that is made.

    Raises:
        MadangError: SEGMENT_NOT_FOUND, SEGMENT_NOT_DONE, STORE_UNAVAILABLE.
    """
    kept = segments.get(segment_id)
    if kept is None:
        raise segment_not_found(segment_id)
    segment = kept.record.segment
    if segment.operation.state != pb.OPERATION_STATE_DONE:
        state = pb.OperationState.Name(segment.operation.state).removeprefix("OPERATION_STATE_")
        raise MadangError(
            Code.FAILED_PRECONDITION,
            reason.ERROR_REASON_SEGMENT_NOT_DONE,
            f"segment {segment_id!r} is {state}, it has no members",
            segment=segment_id,
        )
    return segment


def segment_not_found(segment_id: str) -> MadangError:
    """NOT_FOUND, SEGMENT_NOT_FOUND."""
    return MadangError(
        Code.NOT_FOUND,
        reason.ERROR_REASON_SEGMENT_NOT_FOUND,
        f"there is no segment {segment_id!r}",
        segment=segment_id,
    )
