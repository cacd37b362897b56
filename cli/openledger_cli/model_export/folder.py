"""A folder that appears whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openledger_client.errors import FailedPrecondition, InvalidArgument


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `target`, and renames it to `target` when the block ends.

    When the block raises, the temporary folder is removed. When the process is killed, it stays under a hidden name, and the next
    export to `target` removes it. `target` may be an empty folder.

    Raises:
        InvalidArgument: `target` exists and is not an empty folder.
        FailedPrecondition: another export to `target` runs.
    """
    target = target.absolute()
    _check_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.exporting")
    temporary.mkdir(exist_ok=True)
    lock = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(lock, temporary, target)
        _empty(temporary)
        try:
            yield temporary
            _sync(temporary)
            _check_free(target)  # somebody may have written there meanwhile
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync_one(target.parent)
    finally:
        os.close(lock)


def _check_free(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise InvalidArgument.of("--to", "free", f"{target} is a file; name a new folder")
    if target.is_dir() and any(target.iterdir()):
        raise InvalidArgument.of(
            "--to", "free", f"{target} is not empty; name a new folder, nothing is written over"
        )


def _lock(descriptor: int, temporary: Path, target: Path) -> None:
    """Takes the lock of the temporary folder; refuses when another export has it, or had it and has just renamed the folder."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = os.path.samestat(os.fstat(descriptor), temporary.stat())
    except (BlockingIOError, FileNotFoundError):
        ours = False
    if not ours:
        raise FailedPrecondition(
            f"another export to {target} runs; wait for it, or name another folder",
            reason="EXPORT_RUNS",
            subject=str(target),
        )


def _empty(folder: Path) -> None:
    """Removes what an export left that was killed."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync_one(path)
    _sync_one(folder)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
