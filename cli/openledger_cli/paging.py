"""Lists that may have several pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")


def every(call: Callable[[str], Any], field: str, limit: int = 0) -> Iterator[Any]:
    """Items of all pages. `call` takes a page token and returns a response with `field` and `next_page_token`.

    Stops after `limit` items; 0 means all.
    """
    token, count = "", 0
    while True:
        response = call(token)
        for item in getattr(response, field):
            yield item
            count += 1
            if limit and count >= limit:
                return
        token = response.next_page_token
        if not token:
            return
