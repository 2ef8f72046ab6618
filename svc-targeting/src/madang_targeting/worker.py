"""Makes the segments that were asked for, one at a time, whichever replica comes first."""

import logging
import secrets
import threading
from collections.abc import Callable

from opentelemetry import trace
from prometheus_client import CollectorRegistry, Counter, Gauge

from madang.targeting.v1 import targeting_pb2 as pb
from madang_runtime.errors import DEGRADABLE, MadangError, reason
from madang_runtime.times import now_ms
from madang_targeting.held import NOTE_SECONDS, Held, end_operation
from madang_targeting.maker import SegmentMaker
from madang_targeting.model import TargetingModel
from madang_targeting.segment_store import OPEN, Kept, SegmentStore
from madang_targeting.trees import StoppedError
from madang_targeting.work import Work

log = logging.getLogger(__name__)
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
        self._lease_seconds = lease_seconds
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
        while not self._stop.wait(NOTE_SECONDS):
            try:
                waiting = self._store.open_ids()
                self._metrics.waiting.set(len(waiting))
                self._model()
                for segment_id in waiting:
                    if kept := self._take(segment_id):
                        self._make(kept, self._model())
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
        record.lease_time.FromMilliseconds(now + round(self._lease_seconds * 1000))
        operation.state, operation.attempts = pb.OPERATION_STATE_RUNNING, operation.attempts + 1
        if record.cancel_requested:
            end_operation(operation, pb.OPERATION_STATE_CANCELLED)
        elif operation.attempts > _MOST_ATTEMPTS:
            end_operation(operation, pb.OPERATION_STATE_FAILED)
            operation.error.reason = "INTERNAL"
            operation.error.message = f"{_MOST_ATTEMPTS} workers died over it"
        taken = self._store.put(record, kept.version)
        running = operation.state == pb.OPERATION_STATE_RUNNING
        return Kept(record, kept.version + 1) if taken and running else None

    def _make(self, kept: Kept, model: TargetingModel) -> None:
        segment = kept.record.segment
        with (
            self._tracer.start_as_current_span("segment"),
            Held(self._store, kept, self._lease_seconds, self._stop) as held,
        ):
            work = Work(held.note, held.stopped, self._threads)
            try:
                made = self._maker.make(segment.segment_id, segment.spec, model, work)
            except StoppedError:
                state = held.give_up()
            except MadangError as error:
                if error.code in DEGRADABLE:
                    log.warning("segment %s is tried again: %s", segment.segment_id, error.message)
                    state = held.give_up()
                else:
                    state = held.fail(error.reason_name, error.message)
            except Exception as error:
                log.exception("segment %s failed", segment.segment_id)
                state = held.fail("INTERNAL", f"{type(error).__name__}; see the server's log")
            else:
                state = held.finish(made)
        self._metrics.ended.labels(state).inc()


_NO_MODEL = (reason.ERROR_REASON_MODEL_NOT_FOUND, reason.ERROR_REASON_MODEL_CORRUPT)
