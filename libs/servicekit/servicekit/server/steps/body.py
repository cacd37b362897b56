"""Limits the size of requests and of their headers."""

from __future__ import annotations

from servicekit.errors import ResourceExhausted

MAX_HEADER_BYTES = 64 << 10
"""Largest headers or metadata, for both protocols. It bounds the memory that a client can use before it is authenticated.
Tokens above the 16 KiB of the longest that is accepted must arrive, so that they are refused as tokens."""


def check_size(received_bytes: int, limit_bytes: int) -> None:
    """Refuses a request that is larger than its limit.

    Raises:
        ResourceExhausted: the request is too large; the metadata hold the limit.
    """
    if received_bytes > limit_bytes:
        raise ResourceExhausted(
            "REQUEST_TOO_LARGE",
            f"the request has {received_bytes} bytes or more; at most {limit_bytes} are accepted",
            metadata={"limit_bytes": str(limit_bytes)},
        )
