"""Wakes a consumer that waits in another process, after a commit: a named pipe per consumer.

The pipes are next to the database file. They have advantages over sockets: their paths may be long, they work across network
namespaces that share the folder, and opening one for writing shows whether its reader's process is still running.
"""

from __future__ import annotations

import errno
import os
import select
from pathlib import Path

from servicekit import private


def pipe_path(database: Path, member: str) -> Path:
    """Returns the path of a member's pipe."""
    return database.with_name(database.name + ".wake") / member


class Waiter:
    """The reading end, which the consumer keeps open while it is a member."""

    def __init__(self, path: Path) -> None:
        private.folder(path.parent)
        os.mkfifo(path, 0o600)
        self._path = path
        self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        # With a writer of its own the pipe never reports "hung up" when the last producer has closed it.
        self._writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)

    def clear(self) -> None:
        """Discards earlier wake-ups. Call it before reading records, so that no later wake-up is missed."""
        try:
            while len(os.read(self._reader, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def wait(self, timeout_s: float) -> None:
        """Sleeps until woken, at most for `timeout_s`."""
        self._poll.poll(max(0, int(timeout_s * 1000)))

    def close(self) -> None:
        """Closes and removes the pipe."""
        self._path.unlink(missing_ok=True)
        os.close(self._reader)
        os.close(self._writer)


def poke(path: Path) -> None:
    """Wakes the consumer that reads the pipe, if there is one."""
    try:
        writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return  # the pipe is removed or its process is dead: no consumer to wake
    try:
        os.write(writer, b"!")
    except BlockingIOError:
        pass  # full of wake-ups already
    except BrokenPipeError:
        pass  # the consumer died just now
    finally:
        os.close(writer)


def is_dead(path: Path) -> bool:
    """Returns whether no process reads the pipe, so that its owner was killed. A missing pipe proves nothing."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        return error.errno == errno.ENXIO
    return False
