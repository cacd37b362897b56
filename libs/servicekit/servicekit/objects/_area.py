"""Storage of a store's bytes: the interface of a folder and a bucket, for `servicekit.objects.store` and garbage collection.

Names are relative paths: ``sha256/<2 hex>/<62 hex>`` for objects, ``references/...`` for lists that services publish.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

OBJECTS = "sha256"
REFERENCES = "references"


@dataclass(frozen=True)
class Entry:
    """A stored object: its name, the time of its last put (by the area's clock), and its size in bytes."""

    name: str
    put_time: datetime
    size: int


class Area(Protocol):
    """Named bytes that appear atomically. On an outage a folder raises OSError, and a bucket raises Unavailable."""

    def put(self, temporary: Path, name: str) -> None:
        """Stores a file under a name. Afterwards it exists and has the time of this call, even when a sweep runs concurrently."""

    def open(self, name: str) -> BinaryIO:
        """Opens an object for reading. Raises FileNotFoundError."""

    def put_time(self, name: str) -> datetime | None:
        """Returns the time of its last put; None when it does not exist."""

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yields everything below a prefix, in any order."""

    def remove_older(self, names: Sequence[str], than: datetime) -> list[str]:
        """Removes those that were last put before a time, and returns their names. An object that is put meanwhile stays."""

    def write(self, name: str, data: bytes) -> None:
        """Writes a small object that may change."""

    def remove(self, name: str) -> None:
        """Removes it, if it exists."""

    def remove_leftovers(self, than: datetime) -> int:
        """Removes unfinished writes of processes that died before a time, and returns how many there were."""
