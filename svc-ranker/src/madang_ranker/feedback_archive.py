"""Feedback as a log for training: what RecordFeedback took, as it was sent."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from madang.ranker.v1 import ranker_pb2 as pb
from madang_ranker.feedback import ARCHIVE_GROUP, BATCH, patiently
from madang_runtime.changelog.base import ChangeLog, Entry
from madang_runtime.metrics import Metrics

log = logging.getLogger(__name__)

_MOST = 20_000


class FeedbackArchiver:
    """Writes the log of feedback to an archive, every event at least once.

    Args:
        feedback: the log; it must leave an entry with who took it for longer than `flush_seconds`.
        write: writes a part, whole or not at all.
        metrics: counts what was written.
        name: of this consumer, unlike any other's.
        flush_seconds: how often a part is written.
    """

    def __init__(
        self,
        feedback: ChangeLog,
        write: Callable[[Sequence[pb.FeedbackEvent]], None],
        metrics: Metrics,
        name: str,
        flush_seconds: float,
    ) -> None:
        self._log = feedback
        self._write = write
        self._metrics = metrics
        self._name = name
        self._flush_seconds = flush_seconds

    def run(self, stop: threading.Event) -> None:
        """Archive until `stop`, and then what was taken."""
        while not stop.is_set():
            if part := self._gather(stop):
                self._flush(part)

    def _gather(self, stop: threading.Event) -> list[Entry]:
        part: list[Entry] = []
        until = time.monotonic() + self._flush_seconds
        while (left := until - time.monotonic()) > 0 and len(part) < _MOST and not stop.is_set():
            part += patiently(stop, partial(self._take, min(left, 1.0)))
        return part

    def _take(self, wait: float) -> list[Entry]:
        return self._log.take(ARCHIVE_GROUP, self._name, BATCH, wait)

    def _flush(self, part: list[Entry]) -> None:
        try:
            self._write([pb.FeedbackEvent.FromString(entry.payload) for entry in part])
            self._log.done(ARCHIVE_GROUP, [entry.position for entry in part])
        except Exception:  # whatever a file system raises; the log gives it again
            log.exception("feedback is not archived")
        else:
            self._metrics.log_applied.labels(ARCHIVE_GROUP).inc(len(part))
