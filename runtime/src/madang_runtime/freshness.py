"""Freshness tokens: how far each log must have been read to see certain writes.

A token is parts such as "fs1-1042", joined by commas: a log's name and version, and a position in
it. A service looks for the part of its own log and passes the others on.
"""

import re

from madang_runtime.errors import Code, MadangError, reason

_PART = re.compile(r"([a-z]+\d+)-(\d{1,19})", re.ASCII)


def token(log: str, position: int) -> str:
    """The token of a position in a log, such as ("fs1", 1042)."""
    return f"{log}-{position}"


def position(text: str, log: str) -> int:
    """The position in a log that a token asks for, 0 for any.

    Raises:
        MadangError: FRESHNESS_TOKEN_INVALID.
    """
    return _parse(text).get(log, 0)


def merge(*texts: str) -> str:
    """The token that asks for all that the tokens ask for.

    Raises:
        MadangError: FRESHNESS_TOKEN_INVALID.
    """
    latest: dict[str, int] = {}
    for text in texts:
        for log, at in _parse(text).items():
            latest[log] = max(at, latest.get(log, 0))
    return ",".join(token(log, at) for log, at in sorted(latest.items()))


def _parse(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in text.split(",") if text else ():
        match = _PART.fullmatch(part)
        if not match:
            raise MadangError(
                Code.INVALID_ARGUMENT,
                reason.ERROR_REASON_FRESHNESS_TOKEN_INVALID,
                f"freshness_token: {text!r} is not one of ours",
                field="freshness_token",
            )
        found[match[1]] = max(int(match[2]), found.get(match[1], 0))
    return found
