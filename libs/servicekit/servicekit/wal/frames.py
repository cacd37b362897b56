"""How records stand in a segment file: length, CRC-32C, bytes; and so on to the end.

A process killed while writing leaves at most one incomplete frame, at the end of its last segment. A frame
whose length or checksum is wrong ends what can be read of its segment: nothing says where the next one
would begin.
"""

from __future__ import annotations

import struct

from crc32c import crc32c

_HEAD = struct.Struct("<II")  # length of the payload, its CRC-32C
OVERHEAD = _HEAD.size

MAX_PAYLOAD = 2 * 1024 * 1024
"""Larger than any record the event log takes; a length above it is damage."""


def encode(payload: bytes) -> bytes:
    """The frame of a payload of 1 to MAX_PAYLOAD bytes (ValueError)."""
    if not 0 < len(payload) <= MAX_PAYLOAD:
        raise ValueError(f"a payload holds 1 to {MAX_PAYLOAD} bytes, not {len(payload)}")
    return _HEAD.pack(len(payload), crc32c(payload)) + payload


def decode(data: bytes) -> tuple[list[bytes], int]:
    """The payloads of the whole, undamaged frames from the start of `data`, and how many bytes those fill."""
    payloads: list[bytes] = []
    end = 0
    while end + OVERHEAD <= len(data):
        length, checksum = _HEAD.unpack_from(data, end)
        payload = data[end + OVERHEAD : end + OVERHEAD + length]
        if not 0 < length <= MAX_PAYLOAD or len(payload) < length or crc32c(payload) != checksum:
            break
        payloads.append(payload)
        end += OVERHEAD + length
    return payloads, end
