"""Page tokens: a few numbers, tied to the request that they continue."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import TypeVar

from google.protobuf.message import Message

from madang_runtime.errors import Code, MadangError, reason

Request = TypeVar("Request", bound=Message)

# What may differ between the pages of one list.
_FREE = ("page_token", "page_size", "request_time", "freshness_token")


def page_token(request: Message, *values: int) -> str:
    """The token of a later page of the request's list."""
    text = ".".join([*map(str, values), _digest(request, values)])
    return base64.urlsafe_b64encode(text.encode()).decode()


def page_values(request: Message, token: str, count: int) -> list[int]:
    """The `count` numbers of the token that a request carries.

    Raises:
        MadangError: PAGE_TOKEN_INVALID.
    """
    try:
        text = base64.b64decode(token, b"-_", validate=True).decode()
        *numbers, digest = text.split(".")
        values = [int(number) for number in numbers]
    except (ValueError, binascii.Error, UnicodeError):
        raise _invalid("is not one of ours") from None
    if len(values) != count:
        raise _invalid("is not one of ours")
    if digest != _digest(request, values):
        raise _invalid("belongs to another request")
    return values


def _digest(request: Request, values: Sequence[int]) -> str:
    """Ties the page to the request, so that a changed token is told from one of ours."""
    same = type(request)()
    same.CopyFrom(request)
    for field in _FREE:
        if field in request.DESCRIPTOR.fields_by_name:
            same.ClearField(field)
    text = same.SerializeToString(deterministic=True) + repr([*values]).encode()
    return hashlib.sha256(text).hexdigest()[:16]


def _invalid(message: str) -> MadangError:
    return MadangError(
        Code.INVALID_ARGUMENT,
        reason.ERROR_REASON_PAGE_TOKEN_INVALID,
        f"page_token: {message}",
        field="page_token",
    )
