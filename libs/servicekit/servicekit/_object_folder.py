"""A folder of objects: the whole of a store on one machine (or a shared file system), the cache of one with a bucket."""

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

from servicekit import crash
from servicekit._object_area import OBJECTS, Entry
from servicekit.errors import StartupError
from servicekit.files import remove, sync_folder, write_whole

crash.primitive(__name__)
_TEMPORARY = ".new-"
_BEING_BORN_S = 60.0
"""A temporary file may be this old before its writer has locked it."""


class Folder:
    """See `Area`. Puts and sweeps of one folder exclude each other by a lock, so that none removes what is just put.

    Raises:
        StartupError: the folder cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            (path / OBJECTS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartupError(f"cannot make the object store {path}: {error.strerror}") from None

    @contextmanager
    def temporary(self) -> Iterator[tuple[Path, BinaryIO]]:
        """A file to write to, `finish` and `put`; what was not put is gone when the block ends.

        It is locked until then: a temporary file that nobody has locked is one whose writer died.
        """
        handle, name = mkstemp(prefix=_TEMPORARY, dir=self.path)
        try:
            with os.fdopen(handle, "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield Path(name), file
        finally:
            Path(name).unlink(missing_ok=True)

    def finish(self, file: BinaryIO) -> None:
        """Makes a temporary file durable, and read-only."""
        file.flush()
        os.fchmod(file.fileno(), 0o444)
        os.fsync(file.fileno())

    def put(self, temporary: Path, name: str) -> None:
        """See Area. Whoever comes second replaces the same bytes, which also mends a corrupt copy."""
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
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
                continue  # removed since it was listed

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
        """See Area. A temporary file whose lock nobody holds has no writer any more, however young it is."""
        oldest_s = time.time() - _BEING_BORN_S
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
        """Many puts hold it together, a sweep alone. The kernel lets go of it for a process that dies."""
        with (self.path / ".sweep-lock").open("w") as lock:
            fcntl.flock(lock, kind)
            yield


def _time(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
