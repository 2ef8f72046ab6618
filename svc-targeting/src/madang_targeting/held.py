"""An operation that a worker holds."""

import logging
import threading
import time
from typing import Self

from madang.targeting.v1 import targeting_pb2 as pb
from madang_runtime.errors import MadangError
from madang_runtime.times import now_ms
from madang_targeting.maker import Made
from madang_targeting.segment_store import Kept, SegmentStore

log = logging.getLogger(__name__)
NOTE_SECONDS = 0.5


class Held:
    """As a context manager it renews the lease and notes the progress twice a second, whatever the
    maker is busy with.

    Args:
        store: of segments.
        kept: the operation, as it was taken.
        lease_seconds: how long a sign of life counts.
        stop: set when the service ends.
    """

    def __init__(
        self, store: SegmentStore, kept: Kept, lease_seconds: float, stop: threading.Event
    ) -> None:
        self._store, self._record, self._version = store, kept.record, kept.version
        self._lease, self._stop = lease_seconds, stop
        self._lost = False
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def _operation(self) -> pb.Operation:
        return self._record.segment.operation

    def note(self, stage: str, share: float) -> None:
        """Say how far it is."""
        with self._lock:
            self._operation.stage, self._operation.progress = stage, share

    def stopped(self) -> bool:
        """Whether to stop: it was called off, others hold it, or the service ends."""
        return self._lost or self._record.cancel_requested or self._stop.is_set()

    def give_up(self) -> str:
        """Stop working on it: it was called off, or others may take it now."""
        with self._lock:
            self._record.ClearField("lease_time")
            if self._record.cancel_requested:
                return self._end(pb.OPERATION_STATE_CANCELLED)
            self._operation.attempts -= 1  # nobody died over it
            return self._end(pb.OPERATION_STATE_PENDING)

    def fail(self, why: str, message: str) -> str:
        """There will be no segment."""
        with self._lock:
            self._operation.error.reason, self._operation.error.message = why, message
            return self._end(pb.OPERATION_STATE_FAILED)

    def finish(self, made: Made) -> str:
        """The segment is there."""
        with self._lock:
            self._record.segment.result.CopyFrom(made.result)
            self._operation.stage, self._operation.progress = "", 1.0
            return self._end(pb.OPERATION_STATE_DONE, made.members.SerializeToString())

    def _end(self, state: "pb.OperationState.ValueType", members: bytes | None = None) -> str:
        """Write the last of it, while that helps: what was made should not be lost because the
        store is away for a moment. Returns the state's name, "LOST" when others hold it now."""
        end_operation(self._operation, state)
        until = time.monotonic() + self._lease
        while not (written := self._write(members)) and not self._lost:
            if time.monotonic() > until or self._stop.wait(NOTE_SECONDS):
                break
        self._over.set()
        name = pb.OperationState.Name(state).removeprefix("OPERATION_STATE_")
        return name if written else "LOST"

    def _renew(self) -> None:
        while not self._over.wait(NOTE_SECONDS):
            with self._lock:
                if self._over.is_set() or self._lost:
                    return
                self._record.lease_time.FromMilliseconds(now_ms() + round(self._lease * 1000))
                self._write()

    def _write(self, members: bytes | None = None) -> bool:
        """Write what is known here, unless others hold it; that it was called off is kept. Returns
        whether it is written."""
        try:
            while not self._store.put(self._record, self._version, members):
                # It was called off, or a write of our own was made whose answer was lost.
                kept = self._store.get(self._record.segment.segment_id)
                if kept is None or kept.record.worker != self._record.worker:
                    self._lost = True
                    return False
                self._version = kept.version
                self._record.cancel_requested |= kept.record.cancel_requested
        except MadangError as error:
            log.warning("segment %s: %s", self._record.segment.segment_id, error.message)
            return False
        self._version += 1
        return True


def end_operation(operation: pb.Operation, state: "pb.OperationState.ValueType") -> None:
    """It is over, or waits anew."""
    operation.state = state
    if state != pb.OPERATION_STATE_PENDING:
        operation.end_time.FromMilliseconds(now_ms())
