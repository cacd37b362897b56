"""Small files that are whole or not there: the one way in which our code puts a file where others look for it.

Written beside, synced, renamed, and the folder synced: a reader finds the old content or the new, and what `write_whole`
has returned from survives the machine. A process that dies on the way leaves its temporary file, a hidden name that
nobody reads and that a later writer of the same file removes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from servicekit import crash

crash.primitive(__name__)
_ABANDONED_S = 3600.0
"""A temporary file that nobody has written to for so long has no writer any more."""


def write_whole(path: Path, data: bytes | str, mode: int = 0o644) -> None:
    """Writes a file, whole; text as UTF-8. `mode` is the file's from its first byte on. Raises OSError."""
    content = data.encode() if isinstance(data, str) else data
    with replacing(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path to write to; when the block ends, what is there becomes `path`. For libraries that write files.

    The folder is made when missing. When the block raises, `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
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
    """Removes a file if it is there, durably."""
    with crash.step("remove"):
        path.unlink(missing_ok=True)
    sync_folder(path.parent)


def _remove_abandoned(path: Path) -> None:
    """Temporary files of this path whose writers died."""
    oldest_s = time.time() - _ABANDONED_S
    for found in path.parent.glob(f".{escape(path.name)}.*-*"):
        with suppress(OSError):  # another writer removed it, or may not
            if found.stat().st_mtime < oldest_s:
                found.unlink()


def sync_folder(folder: Path) -> None:
    """Makes a new, renamed or removed name durable; file systems that cannot sync a folder keep names in order anyway."""
    with suppress(OSError):
        _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
