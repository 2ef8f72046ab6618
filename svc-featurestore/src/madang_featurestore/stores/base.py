"""What every store can do. `tests/test_stores.py` is the conformance suite of them all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from madang_featurestore.windows import Increment

KEEP_RECENT = 50
RECENT_TTL_MS = 3_600_000
DEDUPLICATION_TTL_MS = 86_400_000
KEEP_HIDDEN = 200
HIDDEN_TTL_MS = 30 * 86_400_000


class Keys(NamedTuple):
    """Keys to read: `prefix` before each of `ids`."""

    prefix: str
    ids: Sequence[str]


@dataclass(frozen=True)
class Read:
    """The answer to one round trip.

    Attributes:
        sequence: the number of the last write seen.
        epoch: changes whenever a view does.
        values: one a key, in the order of all groups, None where there is none.
        recent: one list a user, newest first.
        hidden: what each user hid.
    """

    sequence: int
    epoch: int
    values: list[bytes | None]
    recent: list[list[bytes]] = field(default_factory=list)
    hidden: list[list[bytes]] = field(default_factory=list)


@dataclass(frozen=True)
class Event:
    """One action to record.

    Attributes:
        event_id: recorded once within a day.
        user_id: whose last actions get it.
        time_ms: when it happened.
        payload: what `Read.recent` returns; b"" to leave the last actions alone.
        counters: what to raise, by the key of the packed rings, and how long the key lives (ms).
        hides: an item that the user hides, or "".
    """

    event_id: str
    user_id: str
    time_ms: int
    payload: bytes
    counters: dict[str, tuple[int, list[Increment]]]
    hides: str = ""


class RowStore(Protocol):
    """Keeps packed rows. Every method is atomic and raises MadangError STORE_UNAVAILABLE."""

    def read(self, groups: Sequence[Keys], users: Sequence[str] = (), since_ms: int = 0) -> Read:
        """Read keys, users' actions not older than `since_ms`, and what they hid, in one round
        trip."""

    def write(self, rows: Mapping[str, bytes], keep_ms: int | None) -> int:
        """Replace rows, all or none; they vanish after `keep_ms`. Returns the sequence number."""

    def record(self, events: Sequence[Event]) -> tuple[list[bool], int]:
        """Record events; False marks those recorded before. Returns the sequence number too."""

    def views(self) -> tuple[int, dict[str, bytes]]:
        """The epoch and all stored definitions."""

    def put_view(self, name: str, definition: bytes, expected: bytes | None) -> bool:
        """Store a definition if the one there is `expected`; returns whether it was."""

    def close(self) -> None:
        """Close connections."""
