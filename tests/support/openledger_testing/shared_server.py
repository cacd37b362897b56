"""One server for all processes of a test run.

pytest-xdist gives each worker its own session fixtures. A server that every worker starts for itself costs seconds of CPU
and hundreds of megabytes each time. Here the first worker that needs a server starts it and the others use the same one.
Tests keep apart by databases, topics and buckets of their own.

The starter ("owner") keeps the server until no other worker uses it. Users hold a shared file lock for as long as they
use it. The kernel releases the lock when a user dies, so a crashed worker never keeps the server alive.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest


def run_folder(factory: pytest.TempPathFactory) -> Path:
    """Returns a folder that all workers of this run, and no other run, have in common."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@contextmanager
def shared_server(folder: Path, name: str, start: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """Yields the address of the server `name`, which `start` runs if no other process of the run has started it.

    Args:
        folder: Common to the processes that share the server; see `run_folder`.
        name: Names the server within the folder.
        start: Returns a context manager that starts the server, yields its address and stops it.
    """
    address = folder / f"{name}.address"
    with _opened(folder / f"{name}.gate") as gate, _opened(folder / f"{name}.users") as users:
        fcntl.flock(gate, fcntl.LOCK_EX)
        with _opened(folder / f"{name}.owner") as owner:
            if _locked_at_once(owner):
                with start() as started:
                    address.write_text(started)
                    fcntl.flock(gate, fcntl.LOCK_UN)
                    try:
                        yield started
                    finally:
                        _wait_for_users(gate, users)
                        address.unlink()
                fcntl.flock(
                    gate, fcntl.LOCK_UN
                )  # only now: a new owner would not find this one's server half stopped
                return
        fcntl.flock(users, fcntl.LOCK_SH)
        found = address.read_text()
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield found


def _wait_for_users(gate: int, users: int) -> None:
    """Returns when no process uses the server, with the gate closed so that none begins to."""
    while True:
        fcntl.flock(users, fcntl.LOCK_EX)  # waits for those that use it now
        fcntl.flock(users, fcntl.LOCK_UN)
        fcntl.flock(gate, fcntl.LOCK_EX)
        if _locked_at_once(users):
            return
        fcntl.flock(gate, fcntl.LOCK_UN)


def _locked_at_once(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield file
    finally:
        os.close(file)
