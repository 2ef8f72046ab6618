"""Errors that reach a caller: a canonical code, a reason, and what the error is about.

Free of transport, so that domains raise them; `madang_runtime.handlers` turns them into gRPC
statuses.
"""

from enum import StrEnum

from madang.common.v1 import error_reason_pb2 as reason

__all__ = ["DEGRADABLE", "Code", "MadangError", "invalid", "reason"]


class Code(StrEnum):
    """The canonical gRPC codes that Madang uses."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UNAVAILABLE = "UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"
    INTERNAL = "INTERNAL"
    CANCELLED = "CANCELLED"


_LONGEST = 1000

# The only codes for which an answer may be degraded. Any other error of a dependency is a bug.
DEGRADABLE = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED})


class MadangError(Exception):
    """An error with a canonical code.

    Args:
        code: the canonical code.
        why: the reason from `ErrorReason`.
        message: what was wrong and what would be right.
        retry_after: seconds after which a retry makes sense, or None.
        about: names of fields or things, sent as ErrorInfo metadata.
    """

    def __init__(
        self,
        code: Code,
        why: "reason.ErrorReason.ValueType",
        message: str,
        *,
        retry_after: float | None = None,
        **about: str,
    ) -> None:
        # Messages travel as headers, which are short.
        message = message if len(message) <= _LONGEST else message[:_LONGEST] + "…"
        super().__init__(message)
        self.code = code
        self.reason = why
        self.message = message
        self.retry_after = retry_after
        self.about = about

    def again(self) -> "MadangError":
        """One like it, to be raised anew: an error that is kept gathers the frames of all who raise
        it, and all that they hold."""
        return MadangError(
            self.code, self.reason, self.message, retry_after=self.retry_after, **self.about
        )

    @property
    def reason_name(self) -> str:
        """The reason without its enum prefix, such as "FIELD_INVALID"."""
        return reason.ErrorReason.Name(self.reason).removeprefix("ERROR_REASON_")


def invalid(field: str, message: str) -> MadangError:
    """INVALID_ARGUMENT about one field of the request."""
    return MadangError(
        Code.INVALID_ARGUMENT,
        reason.ERROR_REASON_FIELD_INVALID,
        f"{field}: {message}",
        field=field,
    )
