"""The dynamic batcher: requests that wait at the same time run as one."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.metrics import Metrics
from madang_runtime.scope import SCOPE, CallScope, deadline_exceeded

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Waiting(Generic[Item, Result]):
    """A caller with its item. `turn` is held until it is done, or the caller shall lead: a bare
    lock, since an Event costs several times as much to make and to wait for."""

    __slots__ = ("done", "error", "item", "result", "rows", "scope", "turn")

    def __init__(self, item: Item, rows: int, scope: CallScope) -> None:
        self.item = item
        self.rows = rows
        self.scope = scope
        self.turn = threading.Lock()
        self.turn.acquire()
        self.done = False
        self.result: Result | None = None
        self.error: Exception | None = None

    def wake(self) -> None:
        """Give it its turn."""
        if self.turn.locked():
            self.turn.release()


class DynamicBatcher(Generic[Item, Result]):
    """Runs waiting items together, in the thread of one of their callers.

    A caller that finds nothing running leads: it runs its item with all that waits, and hands the
    lead to the first that came meanwhile. Idle, an item thus runs without changing threads; under
    load the next batch gathers while one runs, so that `max_delay` is only for models that gain
    from waiting when idle. Work whose caller has left is dropped before it runs.

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
        self._max_waiting = max_waiting
        self._observe_rows = metrics.batch_rows.labels(name).observe
        self._mutex = threading.Lock()
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._led = False

    def __call__(self, item: Item, rows: int) -> Result:
        """Run an item of so many rows with whatever else waits, and return its result.

        Raises:
            MadangError: OVERLOADED when too many items wait, DEADLINE_EXCEEDED when the caller's
                deadline passes; or whatever `run` raised.
        """
        own = _Waiting[Item, Result](item, rows, SCOPE.get())
        leads = self._join(own)
        if not leads:
            left = min(own.scope.remaining, threading.TIMEOUT_MAX)
            if not own.turn.acquire(timeout=max(left, 0)):
                self._leave(own)
        if not own.done:
            self._lead()
        if own.error:
            raise own.error
        return own.result  # type: ignore[return-value]

    def _join(self, own: _Waiting[Item, Result]) -> bool:
        """Queue up; whether the caller leads, as nothing runs."""
        with self._mutex:
            if len(self._waiting) >= self._max_waiting:
                raise MadangError(
                    Code.RESOURCE_EXHAUSTED,
                    reason.ERROR_REASON_OVERLOADED,
                    f"{self._max_waiting} items wait for the model",
                    retry_after=0.1,
                )
            self._waiting.append(own)
            leads = not self._led
            self._led = True
        return leads

    def _leave(self, own: _Waiting[Item, Result]) -> None:
        """Give up waiting, unless the turn has come in this very moment."""
        with self._mutex:
            if not own.turn.locked():
                return
            with contextlib.suppress(ValueError):  # it may be running
                self._waiting.remove(own)
        raise deadline_exceeded("the deadline passed while waiting for the model")

    def _lead(self) -> None:
        """Run one batch from the head of the queue, where the leader stands, then hand on."""
        if self._max_delay:
            time.sleep(self._max_delay)
        with self._mutex:
            batch = [self._waiting.popleft()]
            rows = batch[0].rows
            while self._waiting and rows + self._waiting[0].rows <= self._max_rows:
                batch.append(self._waiting.popleft())
                rows += batch[-1].rows
        self._run_batch(batch)
        with self._mutex:
            for waiting in batch:
                waiting.done = True
                waiting.wake()
            if self._waiting:
                self._waiting[0].wake()
            else:
                self._led = False

    def _run_batch(self, batch: list[_Waiting[Item, Result]]) -> None:
        wanted = []
        for waiting in batch:
            if waiting.scope.abandoned:
                waiting.error = deadline_exceeded("the caller has left")
            else:
                wanted.append(waiting)
        if not wanted:
            return
        self._observe_rows(sum(w.rows for w in wanted))
        try:
            results = self._run([w.item for w in wanted])
            if len(results) != len(wanted):
                raise RuntimeError(f"{len(wanted)} items gave {len(results)} results")
        except Exception as error:
            for waiting in wanted:
                waiting.error = error
        else:
            for waiting, result in zip(wanted, results, strict=True):
                waiting.result = result
