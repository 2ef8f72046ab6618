"""Errors of the logs, and which of Redis mean that it is away for now."""

from collections.abc import Callable
from typing import TypeVar

import redis

from madang_runtime.errors import Code, MadangError, reason

T = TypeVar("T")

# A replica after a failover and a full memory refuse writes for a while, as a dead server does.
AWAY = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.MasterDownError,
)


def log_full(entries: int) -> MadangError:
    """RESOURCE_EXHAUSTED, LOG_FULL."""
    return MadangError(
        Code.RESOURCE_EXHAUSTED,
        reason.ERROR_REASON_LOG_FULL,
        f"{entries:,} entries are not finished by every group; nothing of this call was taken",
        retry_after=1.0,
    )


def not_synced() -> MadangError:
    """UNAVAILABLE, STORE_UNAVAILABLE: written, but not known to be on disk."""
    return MadangError(
        Code.UNAVAILABLE,
        reason.ERROR_REASON_STORE_UNAVAILABLE,
        "the store did not sync its append-only file in time; send the same ids again",
        retry_after=0.2,
    )


def unavailable(error: Exception) -> MadangError:
    """UNAVAILABLE, STORE_UNAVAILABLE."""
    return MadangError(
        Code.UNAVAILABLE,
        reason.ERROR_REASON_STORE_UNAVAILABLE,
        f"the store does not answer: {type(error).__name__}",
        retry_after=0.2,
    )


def guarded(call: Callable[[], T]) -> T:
    """Call the store. Raises: MadangError STORE_UNAVAILABLE."""
    try:
        return call()
    except AWAY as error:
        raise unavailable(error) from error
