"""What a call gets that its caller did not give."""

from typing import Any

from madang_client.policy import USER_HEADER, seconds


def completed(details: Any, request: Any, metadata: tuple[tuple[str, str], ...]) -> Any:
    """The details of a call with a deadline and metadata;
    `request` is None where it is a stream.
    """
    method = details.method.decode() if isinstance(details.method, bytes) else details.method
    given = tuple(details.metadata or ())
    user = getattr(request, "user_id", "")
    if user and user.isascii() and all(key != USER_HEADER for key, _ in given):
        given = (*given, (USER_HEADER, user))
    timeout = seconds(method) if details.timeout is None else details.timeout
    return details._replace(timeout=timeout, metadata=(*metadata, *given))
