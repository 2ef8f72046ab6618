"""Freshness tokens: the number of a write, which a later read can ask for."""

from madang_runtime.errors import Code, MadangError, reason

_PREFIX = "fs1-"


def token(sequence: int) -> str:
    """The token of a write or of what a read saw."""
    return f"{_PREFIX}{sequence}"


def parse_token(text: str) -> int:
    """The number in a token, 0 for none. Raises: MadangError FRESHNESS_TOKEN_INVALID."""
    digits = text.removeprefix(_PREFIX)
    if not text:
        return 0
    if not text.startswith(_PREFIX) or not (digits.isascii() and digits.isdigit()):
        raise MadangError(
            Code.INVALID_ARGUMENT,
            reason.ERROR_REASON_FRESHNESS_TOKEN_INVALID,
            f"freshness_token: {text!r} was not given by this service",
            field="freshness_token",
        )
    return int(digits)


def check_fresh(sequence: int, wanted: int) -> None:
    """Refuse to answer from a state before the token. Raises: MadangError NOT_FRESH_YET."""
    if sequence < wanted:
        raise MadangError(
            Code.UNAVAILABLE,
            reason.ERROR_REASON_NOT_FRESH_YET,
            f"the store has reached {token(sequence)}, asked for {token(wanted)}",
            retry_after=0.1,
        )
