"""Folders for the files of sealings: an operation that is continued finds those that an earlier attempt left.

They contain records. `{root}/{datanet}/{operation}` has the files of one operation; the lock of `{root}` belongs to one process
at a time, and `{root}/worker` is that process's id, which stays the same when it is started again.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from identity.names import DatanetName, SealOperationName
from servicekit import private
from servicekit.deadlines import lock_file
from servicekit.files import write_whole

_LOCK, _WORKER = ".lock", "worker"


class WorkFolders:
    """The folders below one folder of the state folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._used: set[Path] = set()
        self._forgotten: set[Path] = set()
        self._lock = threading.Lock()
        self._owned: IO[Any] | None = None

    def worker(self) -> str:
        """Returns the id of the process that seals here, which is this one; "" while another process does.

        The id is that of the last process here, which therefore does not run any more.
        """
        if self._owned is None:
            file = private.file(private.folder(self._root) / _LOCK).open("w")
            try:
                lock_file(file, within_s=0)
            except TimeoutError:
                file.close()
                return ""
            self._owned = file
        note = self._root / _WORKER
        if not note.exists():
            write_whole(note, uuid4().hex)
        return note.read_text()

    def release(self) -> None:
        """Lets another process seal here. The kernel does that when the process dies."""
        if self._owned is not None:
            self._owned.close()
            self._owned = None

    @contextmanager
    def folder(self, name: SealOperationName) -> Iterator[Path]:
        """Yields the folder of an operation, for one caller at a time. It stays until it is removed."""
        found = self._path(name)
        with self._lock:
            self._used.add(private.folder(found))
        try:
            yield found
        finally:
            with self._lock:
                self._used.discard(found)
                if found in self._forgotten:
                    self._forgotten.discard(found)
                    shutil.rmtree(found, ignore_errors=True)

    def remove(self, name: SealOperationName) -> None:
        """Deletes the folder of an operation that has ended."""
        self._remove(self._path(name))

    def forget(self, datanet: DatanetName) -> None:
        """Deletes the folders of a Datanet, those in use when their block ends: a record was withdrawn, and its text must not
        stay there."""
        for each in (self._root / datanet.datanet).glob("*"):
            with self._lock:
                self._forgotten.update(self._used & {each})
            self._remove(each)

    def keep(self, names: Collection[SealOperationName]) -> None:
        """Deletes the folders of all other operations, unless they are in use."""
        kept = {self._path(name) for name in names}
        for each in self._root.glob("*/*"):
            if each not in kept:
                self._remove(each)

    def _path(self, name: SealOperationName) -> Path:
        return self._root / name.datanet / name.operation

    def _remove(self, folder: Path) -> None:
        with self._lock:
            if folder not in self._used:
                shutil.rmtree(folder, ignore_errors=True)
