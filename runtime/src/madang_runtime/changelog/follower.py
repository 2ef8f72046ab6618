"""Keeps a replica's memory at the state of a compacted log."""

import logging
import threading
import time
from collections.abc import Callable, Mapping

from madang_runtime.changelog.compacted import CompactedLog
from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.metrics import Metrics
from madang_runtime.scope import outgoing_timeout

log = logging.getLogger(__name__)

Apply = Callable[[Mapping[str, bytes | None], bool], None]
_AT_ONCE = 1000
_LONGEST_REACH = 2.0


class Follower:
    """Applies the changes of a log, from a thread and whenever a reader wants a later state.

    Args:
        table: the log.
        name: of it, in metrics and messages.
        apply: takes changes by key, None for deleted, and whether they begin anew: whatever was
            applied before is then void. Never called twice at once.
        metrics: count what is applied.
        every: seconds between looks.
        seen: called once, when all that the log held at the first look that succeeded is applied.
    """

    def __init__(
        self,
        table: CompactedLog,
        name: str,
        apply: Apply,
        metrics: Metrics,
        every: float = 0.5,
        seen: Callable[[], object] = lambda: None,
    ) -> None:
        self._table = table
        self._name = name
        self._apply = apply
        self._applied = metrics.log_applied.labels(name)
        self._every = every
        self._seen, self._told = seen, False
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._looked = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"follow-{name}", daemon=True)
        self._store = ""
        self.position = 0

    @property
    def age(self) -> float:
        """Seconds since the log was last seen whole: what was written since may be missing."""
        return time.monotonic() - self._looked

    def start(self) -> None:
        """Reach the log's end if it can be had now, and follow from then on."""
        self._look()
        self._thread.start()

    def renew(self) -> None:
        """Reach the log's end as it is now, in a round trip. Raises: MadangError NOT_FRESH_YET."""
        asked = time.monotonic()
        self._look(outgoing_timeout(_LONGEST_REACH))
        if self._looked < asked:
            raise self._not_fresh("the log can't be read")

    def reach(self, position: int) -> None:
        """Apply at least up to a position, in a round trip when it is not reached yet.

        Raises:
            MadangError: NOT_FRESH_YET, when the log can't be read or has no such position;
                DEADLINE_EXCEEDED.
        """
        if self.position >= position:
            return
        self._look(outgoing_timeout(_LONGEST_REACH), position)
        if self.position < position:
            raise self._not_fresh(f"this replica has reached {self.position}, asked for {position}")

    def _not_fresh(self, message: str) -> MadangError:
        return MadangError(
            Code.UNAVAILABLE,
            reason.ERROR_REASON_NOT_FRESH_YET,
            f"{self._name}: {message}",
            retry_after=0.1,
        )

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._table.close()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self._look()

    def _look(self, wait: float = -1, wanted: int | None = None) -> None:
        """Apply what is new, unless another thread does for longer than `wait` seconds, or has
        then reached what is wanted. An error leaves everything as it is, for the next look."""
        if not self._lock.acquire(timeout=wait):
            return
        try:
            if wanted is None or self.position < wanted:
                self._catch_up()
        except MadangError as error:
            log.warning("%s is as of %.1f s ago: %s", self._name, self.age, error.message)
        except Exception:
            log.exception("%s could not be applied", self._name)
        finally:
            self._lock.release()

    def _catch_up(self) -> None:
        started = time.monotonic()
        found = self._table.changes(self.position, _AT_ONCE)
        # A store that restarted or took over may have lost writes, and others may stand in their
        # place: whatever was applied is then read anew, and replaced at once.
        anew = (found.store != self._store and self.position > 0) or found.latest < self.position
        if anew:
            found = self._table.changes(0, _AT_ONCE)
        changed = dict(found.changed)
        while found.position < found.latest:
            found = self._table.changes(found.position, _AT_ONCE)
            changed |= found.changed
        if changed or anew:
            self._apply(changed, anew)
            self._applied.inc(len(changed))
        self.position, self._store, self._looked = found.position, found.store, started
        if not self._told:
            self._seen()
            self._told = True
