"""How a commit in one process wakes a consumer that waits in another: a named pipe per consumer.

Pipes beside the database file, not sockets: no limit on the path's length, they work across network
namespaces that share the folder, and opening one for writing tells whether its reader's process still
lives.
"""

from __future__ import annotations

import errno
import os
import select
from pathlib import Path


def pipe_path(database: Path, member: str) -> Path:
    """Where the pipe of a member lies."""
    return database.with_name(database.name + ".wake") / member


class Waiter:
    """The reading end, held by the consumer for as long as it is a member."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)
        self._path = path
        self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        # With a writer of our own the pipe never reports "hung up" when the last poker has closed it.
        self._writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)

    def clear(self) -> None:
        """Forget earlier pokes. Done before looking for records, so that no later poke is missed."""
        try:
            while len(os.read(self._reader, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def wait(self, timeout_s: float) -> None:
        """Sleep until poked, or for `timeout_s`."""
        self._poll.poll(max(0, int(timeout_s * 1000)))

    def close(self) -> None:
        """Close and remove the pipe."""
        self._path.unlink(missing_ok=True)
        os.close(self._reader)
        os.close(self._writer)


def poke(path: Path) -> None:
    """Wake the consumer behind the pipe, if there is one."""
    try:
        writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return  # gone, or its process is dead: nobody to wake
    try:
        os.write(writer, b"!")
    except BlockingIOError:
        pass  # full of pokes already
    except BrokenPipeError:
        pass  # died just now
    finally:
        os.close(writer)


def is_dead(path: Path) -> bool:
    """Whether no process reads the pipe: its owner was killed. A missing pipe proves nothing."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        return error.errno == errno.ENXIO
    return False
