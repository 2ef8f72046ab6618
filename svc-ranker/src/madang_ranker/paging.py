"""Where a page of Recommend begins."""

from dataclasses import dataclass

from madang.ranker.v1 import ranker_pb2 as pb
from madang_runtime.paging import page_token, page_values
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
    return page_token(request, page.offset, page.time_ms, page.candidates)


def parse_page(request: pb.RecommendRequest, now: int) -> Page:
    """The page that a request asks for. Raises: MadangError PAGE_TOKEN_INVALID."""
    if not request.page_token:
        return Page(0, given_ms(request, "request_time", now))
    return Page(*page_values(request, request.page_token, 3))
