"""Page tokens: the start of a page, as base64url of JSON. Opaque to callers, and validated like all of their input."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from servicekit.errors import InvalidArgument

_INT64 = 1 << 63
_MAX_CHARS = 4096
_RIGHT = "must be the next_page_token of a previous answer to the same request"


@dataclass(frozen=True)
class Position:
    """The start of a page: after the item with these sort values. `total` is the count that the first page made."""

    after: tuple[Any, ...]
    total: int


def encode(position: Position, digest: str) -> str:
    """Returns the token of a position in the list with this digest."""
    state = {"d": digest, "a": [_to_json(value) for value in position.after], "t": position.total}
    text = json.dumps(state, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(token: str, digest: str, width: int) -> Position:
    """Returns the position that a token holds.

    Raises:
        InvalidArgument: `encode` did not make it, it is for another list, or it does not have `width` sort values.
    """
    if len(token) > _MAX_CHARS:
        raise wrong(token)
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        state = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        of, after, total = state["d"], tuple(_from_json(value) for value in state["a"]), state["t"]
    except (ValueError, binascii.Error, KeyError, TypeError, InvalidOperation, RecursionError):
        raise wrong(token) from None
    if not isinstance(of, str) or not isinstance(total, int) or not 0 <= total < 1 << 31:
        raise wrong(token)
    if of != digest:
        raise InvalidArgument(
            "page_token",
            "page_token",
            "belongs to a request with another filter, order_by or parent: repeat that request, or leave page_token empty",
            token,
        )
    if len(after) != width:
        raise wrong(token)
    return Position(after, total)


def wrong(token: str) -> InvalidArgument:
    """Returns the error for a token that this list did not make."""
    return InvalidArgument("page_token", "page_token", _RIGHT, token)


def check_type(value: Any, expected: type | None, token: str) -> None:
    """Raises InvalidArgument when a sort value does not have its column's type: then the token is forged."""
    if value is None or expected is None:
        return
    allowed = (int, float) if expected is float else (expected,)
    if not isinstance(value, allowed) or isinstance(value, bool) != (expected is bool):
        raise wrong(token)


_TAGGED: dict[type, tuple[str, Callable[[Any], str], Callable[[str], Any]]] = {
    datetime: ("time", lambda value: value.astimezone(UTC).isoformat(), lambda text: _aware(text)),
    bytes: ("bytes", bytes.hex, bytes.fromhex),
    Decimal: ("decimal", str, Decimal),
}


def _aware(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment


def _to_json(value: Any) -> Any:
    for kind, (tag, write, _) in _TAGGED.items():
        if isinstance(value, kind):
            return {tag: write(value)}
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"a list cannot be sorted by values of type {type(value).__name__}: {value!r}")


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        ((tag, text),) = value.items()
        (read,) = (read for known, _, read in _TAGGED.values() if known == tag)
        return read(text)
    if isinstance(value, str):
        value.encode()  # a lone surrogate is not valid text for a database
        if "\0" in value:
            raise ValueError(value)
    elif isinstance(value, int) and not -_INT64 <= value < _INT64:
        raise ValueError(value)
    elif isinstance(value, Sequence):
        raise TypeError(value)
    return value
