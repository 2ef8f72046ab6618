"""A compacted log in memory, as objects."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LogTable(Generic[Value]):
    """The last value of each key; fed by a `Follower`, read by any thread.

    Args:
        parse: makes a value of a payload.
    """

    def __init__(self, parse: Callable[[bytes], Value]) -> None:
        self._parse = parse
        self.values: Mapping[str, Value] = {}  # replaced as a whole, never changed

    def apply(self, changed: Mapping[str, bytes | None], anew: bool) -> None:
        """Take payloads by key; None removes one."""
        values = {} if anew else dict(self.values)
        for key, payload in changed.items():
            values.pop(key, None)
            if payload is not None:
                values[key] = self._parse(payload)
        self.values = values

    def get(self, key: str) -> Value | None:
        """A key's value, None if there is none."""
        return self.values.get(key)
