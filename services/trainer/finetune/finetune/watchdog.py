"""The orphan watchdog: a job ends with the process that started it, and no two jobs share a folder.

Ray starts a job through a shell. When Ray is killed the shell ends too, but the job would continue unseen while the
next Ray starts the same job again. So a job watches its parent, and waits for a predecessor that is still ending.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from servicekit import private

PREDECESSOR_ENDS_WITHIN_S = 120.0
"""An orphan ends within a second, and a job that Ray stops within ten: longer only on a machine that hardly runs."""
_POLL_EVERY_S = 0.5


class FolderInUse(Exception):
    """Another process of the same job does not end."""


def _exit_at_once() -> None:
    os._exit(1)  # not sys.exit: it would end this thread only


def end_with_parent(orphaned: Callable[[], None] = _exit_at_once) -> None:
    """Ends the process, at once and without cleaning up, within a second after its parent has ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            pause.wait(_POLL_EVERY_S)
        orphaned()

    pause = threading.Event()
    threading.Thread(target=watch, name="orphan watchdog", daemon=True).start()


@contextmanager
def exclusive_use(folder: Path, patience_s: float = PREDECESSOR_ENDS_WITHIN_S) -> Iterator[None]:
    """Holds the folder's lock; waits for a process that still has it. The kernel releases it when a process ends.

    Raises:
        FolderInUse: another process still has it after `patience_s`.
    """
    waiting = Retrying(
        retry=retry_if_exception_type(BlockingIOError),
        stop=stop_after_delay(patience_s),
        wait=wait_fixed(_POLL_EVERY_S),
    )
    with private.file(folder / ".lock").open("w") as lock:
        try:
            waiting(fcntl.flock, lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except RetryError:
            raise FolderInUse(f"another process still uses {folder} after {patience_s:g} s") from None
        yield
