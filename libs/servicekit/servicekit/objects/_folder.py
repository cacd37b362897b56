"""A folder of objects: a complete store on one machine (or a shared file system), or the cache of a store with a bucket."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkstemp
from typing import BinaryIO

from servicekit import crash, private
from servicekit.deadlines import lock_file
from servicekit.errors import StartupError
from servicekit.files import remove, sync_folder, write_whole
from servicekit.objects._area import OBJECTS, Entry

crash.primitive(__name__)
_TEMPORARY = ".new-"
_UNLOCKED_S = 60.0
"""A temporary file may reach this age before its writer has locked it."""


class Folder:
    """See `Area`. A lock excludes puts during a sweep, so that a sweep does not remove an object that is being put.

    Raises:
        StartupError: the folder cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            private.folder(path / OBJECTS)
        except OSError as error:
            raise StartupError(f"cannot make the object store {path}: {error.strerror}") from None

    @contextmanager
    def temporary(self) -> Iterator[tuple[Path, BinaryIO]]:
        """Yields a file to write to, then to `finish` and `put`. It is removed when the block ends without a put.

        It is locked until then: the writer of a temporary file without a lock has died.
        """
        handle, name = mkstemp(prefix=_TEMPORARY, dir=self.path)
        try:
            with os.fdopen(handle, "wb") as file:
                lock_file(file)
                yield Path(name), file
        finally:
            Path(name).unlink(missing_ok=True)

    def finish(self, file: BinaryIO) -> None:
        """Makes a temporary file durable and read-only."""
        file.flush()
        os.fchmod(file.fileno(), 0o400)
        os.fsync(file.fileno())

    def put(self, temporary: Path, name: str) -> None:
        """See Area. A second put of an object replaces it with the same bytes, which also repairs a corrupt copy."""
        path = self.path / name
        private.folder(path.parent)
        with self._sweep_lock(fcntl.LOCK_SH), crash.step("object"):
            temporary.replace(path)
            sync_folder(path.parent)

    def open(self, name: str) -> BinaryIO:
        """See Area."""
        return (self.path / name).open("rb")

    def put_time(self, name: str) -> datetime | None:
        """See Area."""
        try:
            return _time(self.path / name)
        except FileNotFoundError:
            return None

    def entries(self, prefix: str) -> Iterator[Entry]:
        """See Area. Hidden files are temporary ones."""
        for path in (self.path / prefix).rglob("[!.]*"):
            try:
                if path.is_file():
                    yield Entry(str(path.relative_to(self.path)), _time(path), path.stat().st_size)
            except FileNotFoundError:
                continue  # removed after it was listed

    def remove_older(self, names: Sequence[str], than: datetime) -> list[str]:
        """See Area."""
        removed = []
        for name in names:
            with self._sweep_lock(fcntl.LOCK_EX):
                put_time = self.put_time(name)
                if put_time is not None and put_time < than:
                    remove(self.path / name)
                    removed.append(name)
        return removed

    def write(self, name: str, data: bytes) -> None:
        """See Area."""
        write_whole(self.path / name, data)

    def remove(self, name: str) -> None:
        """See Area."""
        if (self.path / name).exists():
            remove(self.path / name)

    def remove_leftovers(self, than: datetime) -> int:
        """See Area. A temporary file that no process has locked has no writer any more."""
        oldest_s = time.time() - _UNLOCKED_S
        found = 0
        for path in self.path.glob(f"{_TEMPORARY}*"):
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                if os.fstat(file.fileno()).st_mtime < oldest_s:
                    path.unlink(missing_ok=True)
                    found += 1
        return found

    @contextmanager
    def _sweep_lock(self, kind: int) -> Iterator[None]:
        """Shared by puts, exclusive for a sweep. The kernel releases the lock when a process dies."""
        with private.file(self.path / ".sweep-lock").open("w") as lock:
            lock_file(lock, kind=kind)
            yield


def _time(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
