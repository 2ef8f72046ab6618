"""The feature store's part of a freshness token: the number of a write."""

from madang_runtime import freshness
from madang_runtime.errors import Code, MadangError, reason

_LOG = "fs1"


def token(sequence: int) -> str:
    """The token of a write or of what a read saw."""
    return freshness.token(_LOG, sequence)


def parse_token(text: str) -> int:
    """The number in a token, 0 for none. Raises: MadangError FRESHNESS_TOKEN_INVALID."""
    return freshness.position(text, _LOG)


def check_fresh(sequence: int, wanted: int) -> None:
    """Refuse to answer from a state before the token. Raises: MadangError NOT_FRESH_YET."""
    if sequence < wanted:
        raise MadangError(
            Code.UNAVAILABLE,
            reason.ERROR_REASON_NOT_FRESH_YET,
            f"the store has reached {token(sequence)}, asked for {token(wanted)}",
            retry_after=0.1,
        )
