"""Page tokens: where the next page begins, tied to the request that it continues."""

import base64
import binascii
import hashlib
from dataclasses import dataclass

from madang.ranker.v1 import ranker_pb2 as pb
from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.times import given_ms


@dataclass(frozen=True)
class Page:
    """Where a page begins, the time at which the whole list is made (ms), and of how many
    candidates; 0 on the first page."""

    offset: int
    time_ms: int
    candidates: int = 0


def next_token(request: pb.RecommendRequest, page: Page) -> str:
    """The token of a later page of the request's list."""
    text = f"{page.offset}.{page.time_ms}.{page.candidates}.{_digest(request, page)}"
    return base64.urlsafe_b64encode(text.encode()).decode()


def parse_page(request: pb.RecommendRequest, now: int) -> Page:
    """The page that a request asks for. Raises: MadangError PAGE_TOKEN_INVALID."""
    if not request.page_token:
        return Page(0, given_ms(request, "request_time", now))
    try:
        text = base64.b64decode(request.page_token, b"-_", validate=True).decode()
        offset, time_ms, candidates, digest = text.split(".")
        page = Page(int(offset), int(time_ms), int(candidates))
    except (ValueError, binascii.Error, UnicodeError):
        raise _invalid("is not one of ours") from None
    if digest != _digest(request, page):
        raise _invalid("belongs to another request")
    return page


def _digest(request: pb.RecommendRequest, page: Page) -> str:
    """Ties the page to the request, so that a changed token is told from one of ours."""
    same = pb.RecommendRequest()
    same.CopyFrom(request)
    for field in ("page_token", "page_size", "request_time", "freshness_token"):
        same.ClearField(field)
    text = same.SerializeToString(deterministic=True) + repr(page).encode()
    return hashlib.sha256(text).hexdigest()[:16]


def _invalid(message: str) -> MadangError:
    return MadangError(
        Code.INVALID_ARGUMENT,
        reason.ERROR_REASON_PAGE_TOKEN_INVALID,
        f"page_token: {message}",
        field="page_token",
    )
