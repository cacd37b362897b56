"""Atomic writes of small files: a reader finds the old content or the new content, never a part.

A file is written under a temporary name, synced and renamed, and then its folder is synced. After `write_whole` returns, the
file survives a crash of the machine. A process that dies earlier leaves its temporary file behind, which has a hidden name; a
later writer of the same file removes it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from servicekit import crash, private

crash.primitive(__name__)
_ABANDONED_S = 3600.0
"""A temporary file that has not changed for this long has no writer any more."""


def write_whole(path: Path, data: bytes | str, mode: int = 0o600) -> None:
    """Writes a file atomically; text as UTF-8. The file has `mode` from its creation on. Raises OSError."""
    content = data.encode() if isinstance(data, str) else data
    with replacing(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to, and renames it to `path` when the block ends. For libraries that write files.

    Creates the folder, private to its owner, when it is missing. When the block raises, `path` does not change.
    """
    private.folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}")
    try:
        yield temporary
        _sync(temporary)
        with crash.step("rename"):
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    _remove_abandoned(path)


def remove(path: Path) -> None:
    """Removes a file durably, if it exists."""
    with crash.step("remove"):
        path.unlink(missing_ok=True)
    sync_folder(path.parent)


def _remove_abandoned(path: Path) -> None:
    """Removes temporary files of this path whose writers died."""
    oldest_s = time.time() - _ABANDONED_S
    for found in path.parent.glob(f".{escape(path.name)}.*-*"):
        with suppress(OSError):  # another writer removed it, or we have no permission
            if found.stat().st_mtime < oldest_s:
                found.unlink()


def sync_folder(folder: Path) -> None:
    """Makes a created, renamed or removed name durable. File systems that cannot sync a folder keep names in order anyway."""
    with suppress(OSError):
        _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
