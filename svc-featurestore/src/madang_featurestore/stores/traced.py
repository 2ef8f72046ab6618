"""Spans around a store."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import trace

from madang_featurestore.stores.base import Event, Keys, Read, RowStore


class TracedStore:
    """Implements `RowStore` by another one, with a client span a round trip."""

    def __init__(self, store: RowStore, tracer: trace.Tracer, system: str) -> None:
        self._store = store
        self._tracer = tracer
        self._system = system

    @contextmanager
    def _span(self, operation: str, size: int) -> Iterator[None]:
        attributes: dict[str, str | int] = {
            "db.system.name": self._system,
            "db.operation.name": operation,
            "db.operation.batch.size": size,
        }
        with self._tracer.start_as_current_span(
            f"store {operation}", kind=trace.SpanKind.CLIENT, attributes=attributes
        ):
            yield

    def read(self, groups: Sequence[Keys], users: Sequence[str] = (), since_ms: int = 0) -> Read:
        """See `RowStore.read`."""
        if not trace.get_current_span().is_recording():  # most look-ups; a span costs them 5 %
            return self._store.read(groups, users, since_ms)
        with self._span("read", sum(len(g.ids) for g in groups) + len(users)):
            return self._store.read(groups, users, since_ms)

    def write(self, rows: Mapping[str, bytes], keep_ms: int | None) -> int:
        """See `RowStore.write`."""
        with self._span("write", len(rows)):
            return self._store.write(rows, keep_ms)

    def record(self, events: Sequence[Event]) -> tuple[list[bool], int]:
        """See `RowStore.record`."""
        with self._span("record", len(events)):
            return self._store.record(events)

    def views(self) -> tuple[int, dict[str, bytes]]:
        """See `RowStore.views`."""
        with self._span("views", 1):
            return self._store.views()

    def put_view(self, name: str, definition: bytes, expected: bytes | None) -> bool:
        """See `RowStore.put_view`."""
        with self._span("put_view", 1):
            return self._store.put_view(name, definition, expected)

    def close(self) -> None:
        """Close the store."""
        self._store.close()
