"""The format of a segment file: a sequence of frames, each with length, CRC-32C and bytes.

A process that is killed while it writes leaves at most one incomplete frame, at the end of its last segment. After a frame with
a wrong length or checksum the rest of the segment cannot be read, because the start of the next frame is unknown.
"""

from __future__ import annotations

import struct

from crc32c import crc32c

_HEAD = struct.Struct("<II")  # length of the payload, its CRC-32C
OVERHEAD = _HEAD.size

MAX_PAYLOAD = 2 * 1024 * 1024
"""Larger than any record that the event log accepts; a larger length is damage."""


def encode(payload: bytes) -> bytes:
    """Returns the frame of a payload of 1 to MAX_PAYLOAD bytes. Raises ValueError for other sizes."""
    if not 0 < len(payload) <= MAX_PAYLOAD:
        raise ValueError(f"a payload holds 1 to {MAX_PAYLOAD} bytes, not {len(payload)}")
    return _HEAD.pack(len(payload), crc32c(payload)) + payload


def decode(data: bytes) -> tuple[list[bytes], int]:
    """Returns the payloads of the complete, undamaged frames at the start of `data`, and the bytes that the frames use."""
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
