"""What the running call may still spend: its deadline, and whether anyone waits for it."""

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

from madang_runtime.errors import Code, MadangError, reason


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class CallScope:
    """The limits of one call.

    Attributes:
        deadline: on the clock of `time.monotonic`, in seconds.
        is_active: False once the caller has left.
        user: the caller's `x-madang-user`, by which canaries are sticky; passed on.
        pressure: from 0, the call did not wait, to 1, it waited as long as a call may: quality can
            be shed by it before calls are refused.
    """

    deadline: float = float("inf")
    is_active: Callable[[], bool] = field(default=_always)
    user: str = ""
    pressure: float = 0.0

    @property
    def remaining(self) -> float:
        """Seconds left; negative when the deadline has passed."""
        return self.deadline - time.monotonic()

    @property
    def abandoned(self) -> bool:
        """Whether the answer would reach nobody."""
        return self.remaining <= 0 or not self.is_active()


USER_HEADER = "x-madang-user"
_UNBOUND = CallScope()
SCOPE: ContextVar[CallScope] = ContextVar("madang_call_scope", default=_UNBOUND)

_MARGIN_SECONDS = 0.005


def outgoing_timeout(cap: float) -> float:
    """Timeout of a call made now: min(the caller's remaining time − margin, cap), in seconds.

    Raises:
        MadangError: DEADLINE_EXCEEDED when no time is left.
    """
    left = min(SCOPE.get().remaining - _MARGIN_SECONDS, cap)
    if left <= 0:
        raise deadline_exceeded("no time is left for a call to a dependency")
    return left


def deadline_exceeded(message: str) -> MadangError:
    """DEADLINE_EXCEEDED."""
    return MadangError(Code.DEADLINE_EXCEEDED, reason.ERROR_REASON_DEADLINE_EXCEEDED, message)
