"""Makes the segments that were asked for, one at a time, whichever replica comes first."""

import logging
import secrets
import threading
import time
from collections.abc import Callable

from opentelemetry import trace
from prometheus_client import CollectorRegistry, Counter, Gauge

from madang.targeting.v1 import targeting_pb2 as pb
from madang_runtime.errors import DEGRADABLE, MadangError, reason
from madang_runtime.times import now_ms
from madang_targeting.maker import Made, SegmentMaker, Work
from madang_targeting.model import TargetingModel
from madang_targeting.segment_store import OPEN, Kept, SegmentStore
from madang_targeting.trees import StoppedError

log = logging.getLogger(__name__)
_NOTE_SECONDS = 0.5
_MOST_ATTEMPTS = 5


class WorkMetrics:
    """What Prometheus gets."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.waiting = Gauge(
            "madang_targeting_open",
            "Segments that are asked for and not made yet.",
            registry=registry,
        )
        self.ended = Counter(
            "madang_targeting_ended",
            "Segments whose making ended here, by how.",
            ["state"],
            registry=registry,
        )


class Worker:
    """Takes operations that nobody holds, and makes them.

    Who works on an operation holds a lease, which they renew as they go: when they die, another
    takes it after `lease_seconds` and begins anew. Whatever a worker writes says which version of
    the record it saw, so that one who was thought dead can't undo what others did since.

    Args:
        store: of segments.
        maker: makes them.
        model: gives the model that serves.
        tracer: makes a span an operation.
        metrics: get how many wait, and how they end.
        lease_seconds: see above.
        threads: to make one with.
    """

    def __init__(
        self,
        store: SegmentStore,
        maker: SegmentMaker,
        model: Callable[[], TargetingModel],
        tracer: trace.Tracer,
        metrics: WorkMetrics,
        *,
        lease_seconds: float,
        threads: int,
    ) -> None:
        self._store, self._maker, self._model = store, maker, model
        self._tracer, self._metrics, self._threads = tracer, metrics, threads
        self._lease_ms = round(lease_seconds * 1000)
        self._name = secrets.token_hex(8)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="segments", daemon=True)

    def start(self) -> None:
        """Work from a thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop; what is being made is left for others, who take it at once."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_NOTE_SECONDS):
            try:
                waiting = self._store.open_ids()
                self._metrics.waiting.set(len(waiting))
                model = self._model()
                for segment_id in waiting:
                    if kept := self._take(segment_id):
                        self._make(kept, model)
                    if self._stop.is_set():
                        return
            except MadangError as error:
                if error.code not in DEGRADABLE and error.reason not in _NO_MODEL:
                    log.warning("segments wait: %s", error.message)
            except Exception:
                log.exception("segments wait")

    def _take(self, segment_id: str) -> Kept | None:
        """Get hold of an operation, unless somebody has."""
        kept = self._store.get(segment_id)
        now = now_ms()
        if kept is None or kept.record.lease_time.ToMilliseconds() > now:
            return None
        record, operation = kept.record, kept.record.segment.operation
        if operation.state not in OPEN:
            return None
        record.worker = self._name
        record.lease_time.FromMilliseconds(now + self._lease_ms)
        operation.state, operation.attempts = pb.OPERATION_STATE_RUNNING, operation.attempts + 1
        if record.cancel_requested:
            _end(operation, pb.OPERATION_STATE_CANCELLED)
        elif operation.attempts > _MOST_ATTEMPTS:
            _end(operation, pb.OPERATION_STATE_FAILED)
            operation.error.reason = "INTERNAL"
            operation.error.message = f"{_MOST_ATTEMPTS} workers died over it"
        taken = self._store.put(record, kept.version)
        running = operation.state == pb.OPERATION_STATE_RUNNING
        return Kept(record, kept.version + 1) if taken and running else None

    def _make(self, kept: Kept, model: TargetingModel) -> None:
        held = _Held(self._store, kept, self._lease_ms, self._stop)
        segment = kept.record.segment
        work = Work(held.note, held.stopped, self._threads)
        with self._tracer.start_as_current_span("segment"):
            try:
                made = self._maker.make(segment.segment_id, segment.spec, model, work)
            except StoppedError:
                held.give_up()
            except MadangError as error:
                if error.code in DEGRADABLE:
                    log.warning("segment %s is tried again: %s", segment.segment_id, error.message)
                    held.give_up()
                else:
                    held.fail(error.reason_name, error.message)
            except Exception as error:
                log.exception("segment %s failed", segment.segment_id)
                held.fail("INTERNAL", f"{type(error).__name__}; see the server's log")
            else:
                held.finish(made)
        state = pb.OperationState.Name(segment.operation.state)
        self._metrics.ended.labels(state.removeprefix("OPERATION_STATE_")).inc()


class _Held:
    """An operation that this worker holds, and writes no more often than needed."""

    def __init__(
        self, store: SegmentStore, kept: Kept, lease_ms: int, stop: threading.Event
    ) -> None:
        self._store, self._record, self._version = store, kept.record, kept.version
        self._lease_ms, self._stop = lease_ms, stop
        self._noted = time.monotonic()
        self._lost = False

    @property
    def _operation(self) -> pb.Operation:
        return self._record.segment.operation

    def note(self, stage: str, share: float) -> None:
        """Say how far it is."""
        self._operation.stage, self._operation.progress = stage, share
        self._renew()

    def stopped(self) -> bool:
        """Whether to stop: it was called off, others hold it, or the service ends."""
        self._renew()
        return self._lost or self._record.cancel_requested or self._stop.is_set()

    def _renew(self) -> None:
        if time.monotonic() - self._noted > _NOTE_SECONDS and not self._lost:
            self._noted = time.monotonic()
            self._record.lease_time.FromMilliseconds(now_ms() + self._lease_ms)
            self._write()

    def give_up(self) -> None:
        """Stop working on it: it was called off, or others may take it now."""
        if self._record.cancel_requested:
            _end(self._operation, pb.OPERATION_STATE_CANCELLED)
        else:
            self._operation.state = pb.OPERATION_STATE_PENDING
            self._operation.attempts -= 1  # nobody died over it
        self._record.ClearField("lease_time")
        self._write()

    def fail(self, why: str, message: str) -> None:
        """There will be no segment."""
        self._operation.error.reason, self._operation.error.message = why, message
        _end(self._operation, pb.OPERATION_STATE_FAILED)
        self._write()

    def finish(self, made: Made) -> None:
        """The segment is there."""
        self._record.segment.result.CopyFrom(made.result)
        self._operation.stage, self._operation.progress = "", 1.0
        _end(self._operation, pb.OPERATION_STATE_DONE)
        self._write(made.members.SerializeToString())

    def _write(self, members: bytes | None = None) -> None:
        """Write what is known here, unless others hold it; that it was called off is kept."""
        try:
            if self._store.put(self._record, self._version, members):
                self._version += 1
                return
            kept = self._store.get(self._record.segment.segment_id)
        except MadangError as error:
            log.warning("segment %s: %s", self._record.segment.segment_id, error.message)
            return
        if kept is None or kept.record.worker != self._record.worker:
            self._lost = True
            return
        self._version = kept.version
        if kept.record.cancel_requested and not self._record.cancel_requested:
            self._record.cancel_requested = True
            self._write(members)


def _end(operation: pb.Operation, state: "pb.OperationState.ValueType") -> None:
    operation.state = state
    operation.end_time.FromMilliseconds(now_ms())


_NO_MODEL = (reason.ERROR_REASON_MODEL_NOT_FOUND, reason.ERROR_REASON_MODEL_CORRUPT)
