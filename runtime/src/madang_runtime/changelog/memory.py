"""A log in this process, for tests and trials."""

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from madang_runtime.changelog.base import REMEMBER_IDS_MS, Count, Entry
from madang_runtime.changelog.errors import log_full


@dataclass
class _Group:
    next: int = 0
    asked: float = field(default_factory=time.monotonic)
    taken: dict[int, tuple[str, float]] = field(default_factory=dict)


class MemoryChangeLog:
    """Implements `ChangeLog` with a list and a lock.

    Args:
        max_entries: entries kept before appending is refused.
        abandoned_after: seconds after which an unfinished entry is given to another consumer.
    """

    def __init__(self, max_entries: int = 1_000_000, abandoned_after: float = 5.0) -> None:
        self._max_entries = max_entries
        self._abandoned_after = abandoned_after
        self._changed = threading.Condition()
        self._entries: dict[int, bytes] = {}
        self._next = 0
        self._seen: dict[str, float] = {}
        self._groups: dict[str, _Group] = {}
        self._counters: dict[str, tuple[float, Counter[str]]] = {}

    def append(self, entries: Sequence[tuple[str, bytes]]) -> list[bool]:
        """See `ChangeLog.append`."""
        now = time.time()
        with self._changed:
            if len(self._entries) + len(entries) > self._max_entries:
                raise log_full(self._max_entries)
            appended = []
            for entry_id, payload in entries:
                fresh = self._seen.get(entry_id, 0.0) <= now
                appended.append(fresh)
                if fresh:
                    self._seen[entry_id] = now + REMEMBER_IDS_MS / 1000
                    self._entries[self._next] = payload
                    self._next += 1
            self._changed.notify_all()
            return appended

    def take(self, group: str, consumer: str, limit: int, wait: float) -> list[Entry]:
        """See `ChangeLog.take`."""
        until = time.monotonic() + wait
        with self._changed:
            while True:
                if found := self._available(group, consumer, limit):
                    return found
                if not self._changed.wait(min(until - time.monotonic(), 0.1)) and (
                    time.monotonic() >= until
                ):
                    return []

    def _available(self, name: str, consumer: str, limit: int) -> list[Entry]:
        group, now = self._groups.setdefault(name, _Group()), time.monotonic()
        group.asked = now
        numbers = [
            n
            for n, (_, since) in sorted(group.taken.items())
            if since <= now - self._abandoned_after
        ] or [n for n in range(group.next, self._next) if n in self._entries]
        numbers = numbers[:limit]
        group.taken |= dict.fromkeys(numbers, (consumer, now))
        group.next = max([group.next, *(n + 1 for n in numbers)])
        return [Entry(str(n), self._entries[n]) for n in numbers]

    def done(self, group: str, positions: Sequence[str]) -> None:
        """See `ChangeLog.done`."""
        with self._changed:
            for position in positions:
                self._groups[group].taken.pop(int(position), None)

    def count(self, group: str, counted: Mapping[str, Sequence[Count]], keep: float) -> int:
        """See `ChangeLog.count`."""
        with self._changed:
            taken = self._groups[group].taken
            fresh = [p for p in counted if taken.pop(int(p), None)]
            for counters, name, n in (count for p in fresh for count in counted[p]):
                _, counts = self._counters.get(counters, (0.0, Counter()))
                counts[name] += n
                self._counters[counters] = time.monotonic() + keep, counts
            return len(fresh)

    def counters(self, counters: str) -> dict[str, int]:
        """See `ChangeLog.counters`."""
        with self._changed:
            until, counts = self._counters.get(counters, (0.0, Counter()))
            return dict(counts) if until > time.monotonic() else {}

    def behind(self, group: str) -> int:
        """See `ChangeLog.behind`."""
        with self._changed:
            found = self._groups.setdefault(group, _Group())
            return self._next - found.next + len(found.taken)

    def forget(self, group: str, idle: float) -> None:
        """See `ChangeLog.forget`."""
        with self._changed:
            found = self._groups.get(group)
            if found and found.asked <= time.monotonic() - idle:
                del self._groups[group]

    def trim(self) -> None:
        """See `ChangeLog.trim`."""
        with self._changed:
            finished = [min([g.next, *g.taken]) for g in self._groups.values()]
            for n in [n for n in self._entries if n < min(finished, default=0)]:
                del self._entries[n]

    def close(self) -> None:
        """Nothing to close."""
