"""A compacted log in this process, for tests and trials."""

import threading
from collections.abc import Mapping

from madang_runtime.changelog.compacted import Changes


class MemoryCompactedLog:
    """Implements `CompactedLog` with a dict in the order of its changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, tuple[int, bytes | None]] = {}
        self._position = 0

    def write(self, changes: Mapping[str, bytes | None]) -> int:
        """See `CompactedLog.write`."""
        with self._lock:
            for key, payload in changes.items():
                self._position += 1
                self._last.pop(key, None)
                self._last[key] = self._position, payload
            return self._position

    def changes(self, after: int, limit: int) -> Changes:
        """See `CompactedLog.changes`."""
        with self._lock:
            later = [(at, key, payload) for key, (at, payload) in self._last.items() if at > after]
            taken = later[:limit]
            reached = taken[-1][0] if taken else self._position
            return Changes(reached, self._position, {key: payload for _, key, payload in taken})

    def close(self) -> None:
        """Nothing to close."""
