"""Times as milliseconds since the epoch."""

import time

from google.protobuf import timestamp_pb2
from google.protobuf.message import Message

from madang_runtime.errors import invalid


def now_ms() -> int:
    """Now."""
    return time.time_ns() // 1_000_000


def given_ms(message: Message, field: str, default: int, path: str = "") -> int:
    """A Timestamp field of a message, or `default` when it is unset.

    Raises:
        MadangError: FIELD_INVALID when it is outside the years 1970 to 9999.
    """
    if not message.HasField(field):
        return default
    timestamp: timestamp_pb2.Timestamp = getattr(message, field)
    try:
        milliseconds = timestamp.ToMilliseconds()
    except ValueError as error:
        raise invalid(path + field, str(error)) from error
    if milliseconds < 0:
        raise invalid(path + field, "is before 1970")
    return milliseconds
