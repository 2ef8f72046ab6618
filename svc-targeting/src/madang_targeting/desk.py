"""Segments and the operations that make them, as callers ask for them."""

from collections.abc import Callable

from madang.targeting.v1 import targeting_pb2 as pb
from madang.targeting.v1.segment_record_pb2 import SegmentRecord
from madang_runtime.errors import Code, MadangError, invalid, reason
from madang_runtime.times import now_ms
from madang_targeting.maker import SegmentMaker
from madang_targeting.model import TargetingModel
from madang_targeting.segment_store import OPEN, Kept, SegmentStore, segment_not_found

_PAGE = 100
_TRIES = 20


class SegmentDesk:
    """The domain of the RPCs about segments and operations.

    Args:
        store: of segments.
        maker: says whether a segment can be made.
        model: gives the model that serves.
    """

    def __init__(
        self, store: SegmentStore, maker: SegmentMaker, model: Callable[[], TargetingModel]
    ) -> None:
        self._store, self._maker, self._model = store, maker, model

    def create(self, request: pb.CreateSegmentRequest) -> pb.Operation:
        """Answer CreateSegment. Raises: MadangError, as the proto says."""
        spec, name = request.spec, request.segment_id
        _check(spec)
        if found := self._same(name, spec):
            return found
        self._maker.check(spec, self._model())
        record = SegmentRecord(segment=pb.Segment(segment_id=name, spec=spec))
        operation = record.segment.operation
        operation.segment_id, operation.state = name, pb.OPERATION_STATE_PENDING
        operation.create_time.FromMilliseconds(now_ms())
        if self._store.put(record, 0):
            return operation
        return self._same(name, spec) or self.create(request)  # somebody was faster

    def _same(self, segment_id: str, spec: pb.SegmentSpec) -> pb.Operation | None:
        """The operation of a segment that was asked for before. Raises: SEGMENT_EXISTS."""
        kept = self._store.get(segment_id)
        if kept is None:
            return None
        if kept.record.segment.spec != spec:
            raise MadangError(
                Code.ALREADY_EXISTS,
                reason.ERROR_REASON_SEGMENT_EXISTS,
                f"segment {segment_id!r} was asked for with another spec; take another id, or "
                "delete it",
                segment=segment_id,
            )
        return kept.record.segment.operation

    def get(self, segment_id: str) -> pb.Segment:
        """Answer GetSegment and GetOperation. Raises: MadangError, as the proto says."""
        return self._kept(segment_id).record.segment

    def page(self, request: pb.ListSegmentsRequest) -> pb.ListSegmentsResponse:
        """Answer ListSegments. Raises: MadangError STORE_UNAVAILABLE."""
        size = request.page_size or _PAGE
        found = [kept.record.segment for kept in self._store.page(request.page_token, size + 1)]
        for segment in found:
            del segment.result.curve[:]
            if segment.operation.state != pb.OPERATION_STATE_DONE:
                segment.ClearField("result")
        more = found[size - 1].segment_id if len(found) > size else ""
        return pb.ListSegmentsResponse(segments=found[:size], next_page_token=more)

    def cancel(self, segment_id: str) -> pb.Operation:
        """Answer CancelOperation. Raises: MadangError, as the proto says."""
        for _ in range(_TRIES):
            kept = self._kept(segment_id)
            operation = kept.record.segment.operation
            if operation.state not in OPEN or kept.record.cancel_requested:
                return operation
            kept.record.cancel_requested = True
            if operation.state == pb.OPERATION_STATE_PENDING:
                operation.state = pb.OPERATION_STATE_CANCELLED
                operation.end_time.FromMilliseconds(now_ms())
            if self._store.put(kept.record, kept.version):
                return operation
        raise AssertionError("a worker writes twice a second at most")

    def delete(self, segment_id: str) -> None:
        """Answer DeleteSegment. Raises: MadangError, as the proto says."""
        if not self._store.delete(segment_id):
            raise segment_not_found(segment_id)

    def _kept(self, segment_id: str) -> Kept:
        kept = self._store.get(segment_id)
        if kept is None:
            raise segment_not_found(segment_id)
        return kept


def _check(spec: pb.SegmentSpec) -> None:
    """Raises: MadangError FIELD_INVALID."""
    if not spec.reference_campaign_ids and not spec.groups:
        raise invalid("spec.groups", "are needed where there is no reference campaign")
    cut = spec.WhichOneof("cut")
    if cut is None:
        raise invalid("spec.size", "is required, or least_rate")
    if cut == "size" and spec.size < 1:
        raise invalid("spec.size", f"is {spec.size}, must be at least 1")
    if cut == "least_rate" and not 0 < spec.least_rate < 1:
        raise invalid("spec.least_rate", f"is {spec.least_rate}, must be within (0, 1)")
