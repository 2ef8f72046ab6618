"""A call to a dependency that is under way, as a domain sees it."""

from typing import Protocol, TypeVar

Answer_co = TypeVar("Answer_co", covariant=True)


class Pending(Protocol[Answer_co]):
    """A call under way.

    Attributes:
        name: of the call and its span.
        started: when, on the clock of `time.perf_counter`.
    """

    name: str
    started: float

    def result(self) -> Answer_co:
        """Wait for the answer.

        Raises:
            MadangError: the callee's error, or UNAVAILABLE, DEADLINE_EXCEEDED.
        """
