"""Page tokens: where the next page begins, opaque to clients."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TypeVar

from servicekit.errors import InvalidArgument

T = TypeVar("T")

DEFAULT_SIZE = 100


def size(asked: int) -> int:
    """The page size meant by a request's `page_size`."""
    return asked or DEFAULT_SIZE


def after(page_token: str) -> str:
    """The key a page begins after; "" from the beginning. Raises InvalidArgument for a token we did not make."""
    try:
        key = base64.urlsafe_b64decode(page_token.encode("ascii")).decode("ascii")
    except (ValueError, binascii.Error):
        raise _unknown(page_token) from None
    if not key.isprintable():
        raise _unknown(page_token)
    return key


def after_number(page_token: str) -> int:
    """The number a page begins after; 0 from the beginning. Raises InvalidArgument for a token we did not make."""
    key = after(page_token)
    if key and not (key.isdigit() and len(key) < 19):
        raise _unknown(page_token)
    return int(key or 0)


def cut(found: Sequence[T], page_size: int, key: Callable[[T], object]) -> tuple[Sequence[T], str]:
    """A page of at most `page_size` out of one more than that, and the token of the next page ("" for none)."""
    page = found[:page_size]
    if len(found) <= page_size:
        return page, ""
    return page, token(key(page[-1]))


def token(key: object) -> str:
    """The token of a page that begins after `key`."""
    return base64.urlsafe_b64encode(str(key).encode()).decode()


def _unknown(page_token: str) -> InvalidArgument:
    return InvalidArgument(
        "page_token", "page_token", "must be the next_page_token of a previous answer", page_token
    )
