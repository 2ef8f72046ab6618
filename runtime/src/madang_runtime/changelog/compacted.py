"""Tables that every replica keeps in memory, as compacted logs: the last change of each key.

`runtime/tests/test_compacted.py` is the suite of them all.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol


class Changes(NamedTuple):
    """What changed after a position.

    Attributes:
        position: up to where `changed` reaches.
        latest: the position of the table's last change.
        changed: the payload of each key, None where it was deleted; oldest change first.
        store: that answered; another one, or the same after a restart, may have lost writes.
    """

    position: int
    latest: int
    changed: dict[str, bytes | None]
    store: str = ""


class CompactedLog(Protocol):
    """A table of payloads in which each change of a key has a position, later than all before.

    Only the last change of a key is kept, so that a reader can start from nothing at any time.
    Every method raises MadangError STORE_UNAVAILABLE.
    """

    def write(self, changes: Mapping[str, bytes | None]) -> int:
        """Put payloads, or delete where None, all or none, durably.

        Returns:
            the position that a reader must reach to see them.
        """

    def changes(self, after: int, limit: int) -> Changes:
        """Up to `limit` changes after a position; 0 is the beginning."""

    def close(self) -> None:
        """Close connections."""
