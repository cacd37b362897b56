"""Texts that quote what others wrote, with a bound.

A message, a stored reason and a log line must not grow with what a caller sent: the caller would choose how much memory and
disk each refusal costs.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_REASON_BYTES = 500
"""Largest reason that is stored with a refusal: with digests, names and indexes, a refusal then takes at most 1 kB."""

_END = "…"


def cut(text: str, max_bytes: int) -> str:
    """Returns a text of at most this many bytes of UTF-8; an ellipsis says that something is missing."""
    if len(text) * 4 <= max_bytes:
        return text
    data = text.encode(errors="replace")
    if len(data) <= max_bytes:
        return text
    return data[: max_bytes - len(_END.encode())].decode(errors="ignore") + _END


def listed(values: Iterable[str], *, most: int = 20, max_bytes: int = 500) -> str:
    """Returns the first values, each cut, with commas; it ends with "..." where some are missing."""
    shown: list[str] = []
    left = max_bytes
    for value in values:
        short = cut(value, 60)
        left -= len(short.encode()) + 2
        if len(shown) == most or left < 0:
            return ", ".join([*shown, "..."])
        shown.append(short)
    return ", ".join(shown)
