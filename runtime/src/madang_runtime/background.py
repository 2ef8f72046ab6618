"""Writes records off a request's path."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from madang_runtime.metrics import Metrics

log = logging.getLogger(__name__)

Record = TypeVar("Record")


class BackgroundWriter(Generic[Record]):
    """Takes records and writes them in parts, from a thread.

    A record waits at most `seconds` in memory before it is written: a crash loses as much. When
    writing fails or can't keep up, records are dropped and counted, never waited for.

    Args:
        what: is written; names the thread and the records that are dropped.
        write: writes a part, whole or not at all.
        metrics: counts what was dropped.
        seconds, most: a part is written after either.
        capacity: records that may wait.
    """

    def __init__(
        self,
        what: str,
        write: Callable[[Sequence[Record]], object],
        metrics: Metrics,
        *,
        seconds: float,
        most: int,
        capacity: int = 20_000,
    ) -> None:
        self._what = what
        self._write = write
        self._dropped = metrics.records_dropped.labels(what)
        self._seconds = seconds
        self._most = most
        self._capacity = capacity
        self._queue: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=what, daemon=True)
        self._thread.start()

    def put(self, record: Record) -> None:
        """Take a record; never blocks."""
        if self._queue.qsize() >= self._capacity:
            self._dropped.inc()
            return
        self._queue.put(record)

    def close(self) -> None:
        """Write what waits."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        more = True
        while more:
            part, more = self._gather()
            if not part:
                continue
            try:
                self._write(part)
            except Exception as error:  # whatever a store or a file system raises
                self._dropped.inc(len(part))
                log.warning("%s: %d records are lost: %s", self._what, len(part), error)

    def _gather(self) -> tuple[list[Record], bool]:
        """A part, and whether more will come."""
        part: list[Record] = []
        until = 0.0
        while len(part) < self._most:
            try:
                left = max(until - time.monotonic(), 0.001) if part else None
                record = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if record is None:
                return part, False
            if not part:
                until = time.monotonic() + self._seconds
            part.append(record)
        return part, True
