"""Page tokens: the key of a page's last entry, opaque to clients."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TypeVar

from servicekit.errors import InvalidArgument

T = TypeVar("T")

DEFAULT_SIZE = 100


def key_of(token: str) -> str:
    """The key after which a page begins; "" for the first. Raises InvalidArgument for a token not made
    here."""
    try:
        key = base64.urlsafe_b64decode(token.encode("ascii")).decode("ascii")
    except (ValueError, binascii.Error):
        key = "\n"
    if not key.isprintable():
        raise InvalidArgument(
            "page_token", "page_token", "must be a previous answer's next_page_token", token
        )
    return key


def page(found: Sequence[T], page_size: int, key: Callable[[T], str]) -> tuple[Sequence[T], str]:
    """At most `page_size` of `found`, which holds one more when there is a next page, and that page's
    token."""
    size = page_size or DEFAULT_SIZE
    if len(found) <= size:
        return found, ""
    return found[:size], base64.urlsafe_b64encode(key(found[size - 1]).encode()).decode()


def limit(page_size: int) -> int:
    """How many to ask the database for: one more than the page, to know whether there is a next."""
    return (page_size or DEFAULT_SIZE) + 1
