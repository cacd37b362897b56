"""The checksum of a record of the embedded log: SQLite does not notice a byte that changes on the disk."""

from __future__ import annotations

import struct
from typing import Any

from crc32c import crc32c

_NUMBERS = struct.Struct("<qqII")  # row id, time, length of the key, length of the value


def checksum(row_id: int, timestamp_ms: int, key: bytes, value: bytes, headers: bytes) -> int:
    """Returns the CRC-32C of a record with its position, so that a record that moved is noticed as well."""
    numbers = _NUMBERS.pack(row_id, timestamp_ms, len(key), len(value))
    return crc32c(headers, crc32c(value, crc32c(key, crc32c(numbers))))


def is_damaged(row: tuple[Any, ...]) -> bool:
    """Returns whether a row (id, time, key, value, headers, checksum) differs from what was written.

    The checksum is None in rows of an earlier release. The type of a column is on the disk too, so it may differ as well.
    """
    row_id, timestamp_ms, key, value, headers, stored = row
    if stored is None:
        return False
    if not isinstance(timestamp_ms, int):
        return True
    if not (isinstance(key, bytes) and isinstance(value, bytes) and isinstance(headers, bytes)):
        return True
    return bool(checksum(row_id, timestamp_ms, key, value, headers) != stored)
