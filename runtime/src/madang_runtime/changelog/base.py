"""What every change log can do. `runtime/tests/test_changelog.py` is the suite of them all."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

REMEMBER_IDS_MS = 86_400_000
"""How long an id counts as a duplicate."""


class Entry(NamedTuple):
    """One entry of a log.

    Attributes:
        position: where it stands; later entries have later positions.
        payload: what was appended.
    """

    position: str
    payload: bytes


class Count(NamedTuple):
    """What to count.

    Attributes:
        counters: the set of counters.
        name: of the counter within it.
        n: by how much.
    """

    counters: str
    name: str
    n: int = 1


class ChangeLog(Protocol):
    """An ordered log that groups of consumers work off.

    Entries reach a group at least once: one that a consumer took and did not finish is given to
    another. Who applies them makes the effect exactly-once, by the entry's own id.

    Every method raises MadangError STORE_UNAVAILABLE.
    """

    def append(self, entries: Sequence[tuple[str, bytes]]) -> list[bool]:
        """Append payloads under their ids, all or none, durably.

        Returns:
            False for each id that was appended before, within a day.

        Raises:
            MadangError: LOG_FULL when the consumers are too far behind.
        """

    def take(self, group: str, consumer: str, limit: int, wait: float) -> list[Entry]:
        """Up to `limit` entries for a consumer of a group, oldest first.

        First those that another consumer of the group took and left unfinished, then new ones.
        Waits up to `wait` seconds for the first.
        """

    def done(self, group: str, positions: Sequence[str]) -> None:
        """Finish entries: the group does not get them again."""

    def count(self, group: str, counted: Mapping[str, Sequence[Count]], keep: float) -> int:
        """Finish entries and count them, in one step: each entry counts once, whoever dies.

        Args:
            group: whose entries they are.
            counted: of each position, what to count.
            keep: seconds that a set of counters is kept after it was last counted in.

        Returns:
            how many entries the group had not finished yet.
        """

    def counters(self, counters: str) -> dict[str, int]:
        """A set of counters by name; empty when there is none."""

    def behind(self, group: str) -> int:
        """How many entries the group has not finished."""

    def forget(self, group: str, idle: float) -> None:
        """Forget a group, for which entries would be kept, if no consumer of it has asked for as
        many seconds: one that comes back starts with what is left of the log."""

    def trim(self) -> None:
        """Forget what every group has finished."""

    def close(self) -> None:
        """Close connections."""
