"""Lists that come in pages, whole."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

Page = TypeVar("Page")


def pages(method: Callable[[Any], Page], request: Any) -> Iterator[Page]:
    """All pages of a list, such as `pages(madang.targeting.ListSegments, request)`.

    Raises: MadangError.
    """
    while True:
        page: Any = method(request)
        yield page
        if not page.next_page_token:
            return
        request = _after(request, page)


async def apages(method: Callable[[Any], Awaitable[Page]], request: Any) -> AsyncIterator[Page]:
    """`pages` for `AsyncMadang`."""
    while True:
        page: Any = await method(request)
        yield page
        if not page.next_page_token:
            return
        request = _after(request, page)


def _after(request: Any, page: Any) -> Any:
    following = type(request)()
    following.CopyFrom(request)
    following.page_token = page.next_page_token
    return following
