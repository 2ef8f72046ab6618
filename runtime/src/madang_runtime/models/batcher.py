"""The dynamic batcher: requests that wait at the same time run as one."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Generic, TypeVar

from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.metrics import Metrics
from madang_runtime.scope import SCOPE, CallScope, deadline_exceeded

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    rows: int
    scope: CallScope
    future: "Future[Result]"


class DynamicBatcher(Generic[Item, Result]):
    """Runs waiting items together in one thread.

    While a batch runs, the next one gathers; so load makes batches by itself, and `max_delay` is
    only for models that gain from waiting when idle. Work whose caller has left is dropped before
    it runs.

    Args:
        run: takes the items of a batch and returns as many results.
        max_rows: rows at which a batch is full. An item with more rows runs alone.
        max_delay: seconds that the first item of a batch waits for more.
        max_waiting: items that may wait; more are refused.
        metrics: gets the batch sizes under `name`.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        name: str,
        metrics: Metrics,
        max_rows: int = 2048,
        max_delay: float = 0.0,
        max_waiting: int = 256,
    ) -> None:
        self._run = run
        self._max_rows = max_rows
        self._max_delay = max_delay
        self._observe_rows = metrics.batch_rows.labels(name).observe
        self._queue: queue.Queue[_Waiting[Item, Result] | None] = queue.Queue(max_waiting)
        self._thread = threading.Thread(target=self._loop, name=f"batcher-{name}", daemon=True)
        self._thread.start()

    def __call__(self, item: Item, rows: int) -> Result:
        """Run an item of so many rows with whatever else waits, and return its result.

        Raises:
            MadangError: OVERLOADED when too many items wait, DEADLINE_EXCEEDED when the caller's
                deadline passes; or whatever `run` raised.
        """
        scope = SCOPE.get()
        waiting: _Waiting[Item, Result] = _Waiting(item, rows, scope, Future())
        try:
            self._queue.put_nowait(waiting)
        except queue.Full:
            raise MadangError(
                Code.RESOURCE_EXHAUSTED,
                reason.ERROR_REASON_OVERLOADED,
                f"{self._queue.maxsize} items wait for the model",
                retry_after=0.1,
            ) from None
        left = scope.remaining
        try:
            return waiting.future.result(None if left == float("inf") else max(left, 0))
        except FutureTimeout:
            raise deadline_exceeded("the deadline passed while waiting for the model") from None

    def close(self) -> None:
        """Run what waits, then end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _loop(self) -> None:
        carried: _Waiting[Item, Result] | None = None
        while first := carried or self._queue.get():
            batch, carried, ended = self._gather(first)
            self._run_batch([w for w in batch if self._wanted(w)])
            if ended:
                return

    def _gather(
        self, first: _Waiting[Item, Result]
    ) -> tuple[list[_Waiting[Item, Result]], _Waiting[Item, Result] | None, bool]:
        batch, rows = [first], first.rows
        until = time.monotonic() + self._max_delay
        while rows < self._max_rows:
            try:
                patience = until - time.monotonic()
                more = self._queue.get(patience > 0, patience if patience > 0 else None)
            except queue.Empty:
                break
            if more is None:
                return batch, None, True
            if rows + more.rows > self._max_rows:
                return batch, more, False
            batch.append(more)
            rows += more.rows
        return batch, None, False

    @staticmethod
    def _wanted(waiting: _Waiting[Item, Result]) -> bool:
        if waiting.scope.abandoned:
            waiting.future.set_exception(deadline_exceeded("the caller has left"))
            return False
        return True

    def _run_batch(self, batch: list[_Waiting[Item, Result]]) -> None:
        if not batch:
            return
        self._observe_rows(sum(w.rows for w in batch))
        try:
            results = self._run([w.item for w in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(batch)} items gave {len(results)} results")
        except Exception as error:
            for waiting in batch:
                waiting.future.set_exception(error)
        else:
            for waiting, result in zip(batch, results, strict=True):
                waiting.future.set_result(result)
