"""A store in this process, for tests and trials."""

import struct
import threading
import time
from collections.abc import Mapping, Sequence

from madang_featurestore.stores.base import (
    DEDUPLICATION_TTL_MS,
    HIDDEN_TTL_MS,
    KEEP_HIDDEN,
    KEEP_RECENT,
    Event,
    Keys,
    Read,
)
from madang_featurestore.windows import SLOTS, Increment


class MemoryStore:
    """Implements `RowStore` with dictionaries and a lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, tuple[bytes, float]] = {}
        self._recent: dict[str, list[tuple[int, bytes]]] = {}
        self._hidden: dict[str, dict[str, int]] = {}
        self._seen: dict[str, float] = {}
        self._views: dict[str, bytes] = {}
        self._sequence = 0
        self._epoch = 0

    def read(self, groups: Sequence[Keys], users: Sequence[str] = (), since_ms: int = 0) -> Read:
        """See `RowStore.read`."""
        with self._lock:
            return Read(
                self._sequence,
                self._epoch,
                [self._value(prefix + i) for prefix, ids in groups for i in ids],
                [
                    [payload for at, payload in self._recent.get(u, ()) if at >= since_ms]
                    for u in users
                ],
                [self._hidden_by(u) for u in users],
            )

    def _hidden_by(self, user: str) -> list[bytes]:
        oldest = time.time() * 1000 - HIDDEN_TTL_MS
        return [i.encode() for i, at in self._hidden.get(user, {}).items() if at >= oldest]

    def _value(self, key: str) -> bytes | None:
        value, forget_at = self._rows.get(key, (None, 0.0))
        return value if forget_at > time.time() * 1000 else None

    def write(self, rows: Mapping[str, bytes], keep_ms: int | None) -> int:
        """See `RowStore.write`."""
        with self._lock:
            self._keep(rows, keep_ms)
            self._sequence += 1
            return self._sequence

    def _keep(self, rows: Mapping[str, bytes], keep_ms: int | None) -> None:
        forget_at = float("inf") if keep_ms is None else time.time() * 1000 + keep_ms
        self._rows.update({key: (value, forget_at) for key, value in rows.items()})

    def record(self, events: Sequence[Event]) -> tuple[list[bool], int]:
        """See `RowStore.record`."""
        with self._lock:
            recorded = [self._record(event) for event in events]
            self._sequence += 1
            return recorded, self._sequence

    def _record(self, event: Event) -> bool:
        now = time.time() * 1000
        if self._seen.get(event.event_id, 0) > now:
            return False
        self._seen[event.event_id] = now + DEDUPLICATION_TTL_MS
        if event.payload:
            recent = self._recent.setdefault(event.user_id, [])
            recent.append((event.time_ms, event.payload))
            recent.sort(reverse=True)
            del recent[KEEP_RECENT:]
        if event.hides:
            hidden = self._hidden.setdefault(event.user_id, {})
            hidden[event.hides] = max(event.time_ms, hidden.get(event.hides, 0))
            for item in sorted(hidden, key=lambda i: hidden[i])[:-KEEP_HIDDEN]:
                del hidden[item]
        for key, (keep_ms, increments) in event.counters.items():
            value = bytearray(self._value(key) or b"")
            for increment in increments:
                _raise(value, increment)
            self._keep({key: bytes(value)}, keep_ms)
        return True

    def views(self) -> tuple[int, dict[str, bytes]]:
        """See `RowStore.views`."""
        with self._lock:
            return self._epoch, dict(self._views)

    def put_view(self, name: str, definition: bytes, expected: bytes | None) -> bool:
        """See `RowStore.put_view`."""
        with self._lock:
            if self._views.get(name) != expected:
                return False
            self._views[name] = definition
            self._epoch += 1
            return True

    def close(self) -> None:
        """Nothing to close."""


def _raise(value: bytearray, increment: Increment) -> None:
    at = increment.offset + increment.bucket % SLOTS * increment.slot_bytes
    if len(value) < at + increment.slot_bytes:
        value.extend(bytes(at + increment.slot_bytes - len(value)))
    form = f"<{increment.slot_bytes // 4}I"
    bucket, *counters = struct.unpack_from(form, value, at)
    if bucket > increment.bucket:  # the slot already belongs to a later time
        return
    if bucket < increment.bucket:
        counters = [0] * len(counters)
    for i in increment.counters:
        counters[i] += 1
    struct.pack_into(form, value, at, increment.bucket, *counters)
