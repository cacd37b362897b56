"""A job shares the fate of whoever started it, and has its folder to itself.

Ray starts a job through a shell. When Ray is killed the shell goes too, but the job would run on unseen while Ray's
successor starts the same job again. So a job watches its parent, and waits for a predecessor that is still dying.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LOOK_EVERY_S = 0.5


def _abandon() -> None:
    os._exit(1)  # not sys.exit: it would end this thread only


def die_with_parent(orphaned: Callable[[], None] = _abandon) -> None:
    """Ends the process, at once and without cleaning up, soon after its parent has gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            pause.wait(_LOOK_EVERY_S)
        orphaned()

    pause = threading.Event()
    threading.Thread(target=watch, name="parent watch", daemon=True).start()


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Holds the folder's lock; waits for a process that still has it. The kernel gives it back when a process dies."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
