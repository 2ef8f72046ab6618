"""The thread pool of a server, which knows how long each call waited and how many still wait."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from madang_runtime.errors import Code, MadangError, reason


class AdmissionPool(ThreadPoolExecutor):
    """Runs handlers and refuses work that waited too long or stands behind too much.

    Args:
        threads: handlers that run at once.
        max_waiting: calls running or waiting before new ones are refused.
        max_queue_seconds: longest wait for a thread before a call is refused.
    """

    def __init__(self, threads: int, max_waiting: int, max_queue_seconds: float) -> None:
        super().__init__(threads, thread_name_prefix="rpc")
        self._max_waiting = max_waiting
        self.max_queue_seconds = max_queue_seconds
        self._local = threading.local()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a call and note when."""
        return super().submit(self._run, time.monotonic(), fn, args, kwargs)

    def _run(
        self, queued: float, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self._local.waited = time.monotonic() - queued
        return fn(*args, **kwargs)

    def admit(self) -> float:
        """Admit the call that runs in this thread and return how long it waited, in seconds.

        Raises:
            MadangError: RESOURCE_EXHAUSTED, OVERLOADED, with a time after which to retry.
        """
        waited: float = getattr(self._local, "waited", 0.0)
        waiting = self._work_queue.qsize()
        if waited > self.max_queue_seconds or waiting > self._max_waiting:
            raise MadangError(
                Code.RESOURCE_EXHAUSTED,
                reason.ERROR_REASON_OVERLOADED,
                f"{waiting} calls wait, this one waited {waited:.3f} s",
                retry_after=max(0.1, waited),
            )
        return waited
