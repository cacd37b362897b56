"""Where a store's bytes lie: what a folder and a bucket both promise to `servicekit.objects` and to garbage collection.

Names are relative paths: ``sha256/<2 hex>/<62 hex>`` for objects, ``references/...`` for what services publish of them.
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
    """A stored thing: its name, when it was last put (the area's own clock), and its size in bytes."""

    name: str
    put_time: datetime
    size: int


class Area(Protocol):
    """Named bytes, whole or not there. A folder raises OSError, a bucket Unavailable, when it cannot answer."""

    def put(self, temporary: Path, name: str) -> None:
        """Gives a file's bytes a name; afterwards they are there and as young as this call, whatever sweep runs beside it."""

    def open(self, name: str) -> BinaryIO:
        """Raises FileNotFoundError."""

    def put_time(self, name: str) -> datetime | None:
        """When it was last put; None when it is not there."""

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Everything below a prefix, in any order."""

    def remove_older(self, names: Sequence[str], than: datetime) -> list[str]:
        """Removes what was last put before a moment, and returns what it removed. What is put meanwhile stays."""

    def write(self, name: str, data: bytes) -> None:
        """Writes a small thing that may change."""

    def remove(self, name: str) -> None:
        """Removes it if it is there."""

    def remove_leftovers(self, than: datetime) -> int:
        """Removes what writers that died before a moment left unfinished; returns how much of it there was."""
