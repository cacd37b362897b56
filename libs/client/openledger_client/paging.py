"""Lists that span several pages (AIP-158)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import grpc


class Page(Protocol):
    """A response of a List method."""

    next_page_token: str


PageT = TypeVar("PageT", bound=Page)
Item = TypeVar("Item")
LARGEST_PAGE = 1000
"""Most items that a server puts on one page."""


def pages(
    call: grpc.UnaryUnaryMultiCallable[Any, PageT], request: Any, *, timeout_s: float | None = None
) -> Iterator[PageT]:
    """Yields every page of a list, from the request's `page_token` on. The request is not changed.

    Args:
        call: a List method of a stub, e.g. `client.datanet.ListDatanets`.
        request: its request; `page_size`, `filter` and `order_by` apply to all pages.
        timeout_s: deadline of each page's call; None takes the client's.

    Raises:
        OpenLedgerError: any error of the service.
    """
    request = _copy(request)
    while True:
        page = call(request, timeout=timeout_s)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def items(
    call: grpc.UnaryUnaryMultiCallable[Any, PageT],
    request: Any,
    of: Callable[[PageT], Iterable[Item]],
    *,
    limit: int = 0,
    timeout_s: float | None = None,
) -> Iterator[Item]:
    """Yields the items of every page, at most `limit` (0 means all), and reads no more pages than that needs.

    Example:
        `items(client.datanet.ListDatanets, pb.ListDatanetsRequest(), lambda page: page.datanets)`
    """
    count = 0
    for page in pages(call, sized(request, limit), timeout_s=timeout_s):
        for item in of(page):
            yield item
            count += 1
            if count == limit:
                return


async def async_pages(
    call: grpc.aio.UnaryUnaryMultiCallable[Any, PageT], request: Any, *, timeout_s: float | None = None
) -> AsyncIterator[PageT]:
    """`pages` for asyncio."""
    request = _copy(request)
    while True:
        page = await call(request, timeout=timeout_s)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def async_items(
    call: grpc.aio.UnaryUnaryMultiCallable[Any, PageT],
    request: Any,
    of: Callable[[PageT], Iterable[Item]],
    *,
    limit: int = 0,
    timeout_s: float | None = None,
) -> AsyncIterator[Item]:
    """`items` for asyncio."""
    count = 0
    async for page in async_pages(call, sized(request, limit), timeout_s=timeout_s):
        for item in of(page):
            yield item
            count += 1
            if count == limit:
                return


def sized(request: Any, limit: int) -> Any:
    """Returns the request with a `page_size` that fits `limit`, unless it has one."""
    if not limit or request.page_size:
        return request
    request = _copy(request)
    request.page_size = min(limit, LARGEST_PAGE)
    return request


def _copy(request: Any) -> Any:
    copy = type(request)()
    copy.CopyFrom(request)
    return copy
