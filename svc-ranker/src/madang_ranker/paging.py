"""Page tokens: where the next page begins, tied to the request that it continues."""

import base64
import binascii
import hashlib
from dataclasses import dataclass

from madang.ranker.v1 import ranker_pb2 as pb
from madang_runtime.errors import Code, MadangError, reason


@dataclass(frozen=True)
class Page:
    """Where a page begins, and the time at which the whole list is made (ms)."""

    offset: int
    time_ms: int


def next_token(request: pb.RecommendRequest, page: Page) -> str:
    """The token of a later page of the request's list."""
    text = f"{page.offset}.{page.time_ms}.{_digest(request)}"
    return base64.urlsafe_b64encode(text.encode()).decode()


def parse_page(request: pb.RecommendRequest, now_ms: int) -> Page:
    """The page that a request asks for. Raises: MadangError PAGE_TOKEN_INVALID."""
    if not request.page_token:
        asked = (
            request.request_time.ToMilliseconds() if request.HasField("request_time") else now_ms
        )
        return Page(0, asked)
    try:
        text = base64.b64decode(request.page_token, b"-_", validate=True).decode()
        offset, time_ms, digest = text.split(".")
        page = Page(int(offset), int(time_ms))
    except (ValueError, binascii.Error, UnicodeError):
        raise _invalid("is not one of ours") from None
    if page.offset < 0 or page.time_ms < 0 or digest != _digest(request):
        raise _invalid("belongs to another request")
    return page


def _digest(request: pb.RecommendRequest) -> str:
    same = pb.RecommendRequest()
    same.CopyFrom(request)
    for field in ("page_token", "page_size", "request_time", "freshness_token"):
        same.ClearField(field)
    return hashlib.sha256(same.SerializeToString(deterministic=True)).hexdigest()[:16]


def _invalid(message: str) -> MadangError:
    return MadangError(
        Code.INVALID_ARGUMENT,
        reason.ERROR_REASON_PAGE_TOKEN_INVALID,
        f"page_token: {message}",
        field="page_token",
    )
