"""Crash points: the points, before and after every durable step, at which a test can kill the process.

The result of a durable step survives the process: a commit, a rename, a send, a submission. Work between two durable steps is
lost with a kill, so the crash points cover all states that a restart can find. All durable steps use a few primitives
(`database.transaction`, `files`, `objects`, `eventlog`, `wal`, ...), which call `point` before and after the step. A point is
named after the function that used the primitive, so each new use of a primitive is a new point that need not be listed:

    datanet.intake:ContributionWriter.write before commit

A durable step that uses no primitive is wrapped in `step`. `tests/crash` finds durable steps without a crash point, records
the points that each service hits, kills a process at each of them, and checks the state after the restart.

No point is armed unless a test arms it: by `plan`, or for another process by the environment. A point that is not armed costs
one comparison.

    OPENLEDGER_CRASH_RECORD=FILE       appends the name of each point to FILE, in order
    OPENLEDGER_CRASH_AT=POINT#N        kills the process when it hits POINT for the Nth time
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

EXIT_CODE = 137
"""The exit code that a shell reports for a process that was killed by SIGKILL."""

_INSTALLED = f"{os.sep}site-packages{os.sep}"


class Plan:
    """What the process does at its crash points."""

    def __init__(self, record: Path | None = None, die_at: str = "", on_hit: int = 1) -> None:
        """Records points to `record`; kills the process when it hits the point `die_at` for the `on_hit`th time."""
        self._file = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if record else -1
        self._die_at = die_at
        self._on_hit = on_hit
        self._hits: Counter[str] = Counter()
        self._lock = threading.Lock()

    def reached(self, name: str) -> None:
        """Records the hit of a point. Does not return if the process is to be killed there."""
        with self._lock:
            self._hits[name] += 1
            if self._file >= 0:
                os.write(self._file, f"{name}\n".encode())
            if name == self._die_at and self._hits[name] == self._on_hit:
                os._exit(EXIT_CODE)


_plan: Plan | None = None
_primitives: set[str] = {__name__}


def plan(made: Plan | None) -> None:
    """Sets what this process does at its crash points from now on; None, the default, does nothing."""
    global _plan
    _plan = made


def primitive(module: str) -> None:
    """Declares a module whose durable steps are taken for its callers: its points are named after the calling function."""
    _primitives.add(module)


def point(name: str) -> None:
    """A crash point. `name` says before or after which step it lies."""
    if _plan is not None:
        _plan.reached(f"{_whose()} {name}")


@contextmanager
def step(what: str) -> Iterator[None]:
    """A durable step, with a point before and one after it. A step that raises has no point after it."""
    point(f"before {what}")
    yield
    point(f"after {what}")


def _whose() -> str:
    """Returns `module:function` of the nearest first-party frame outside the primitives, else of the outermost primitive."""
    frame: FrameType | None = sys._getframe(2)
    name = ""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if _is_ours(module, frame.f_code.co_filename):
            name = f"{module}:{frame.f_code.co_qualname}"
            if module not in _primitives:
                return name
        elif name and module == "threading":
            return name  # the top of a primitive's own thread
        frame = frame.f_back
    return name


def _is_ours(module: str, filename: str) -> bool:
    return _INSTALLED not in filename and module.partition(".")[0] not in sys.stdlib_module_names


def _from_environment() -> Plan | None:
    record, at = os.environ.get("OPENLEDGER_CRASH_RECORD"), os.environ.get("OPENLEDGER_CRASH_AT", "")
    if not record and not at:
        return None
    name, _, hit = at.partition("#")
    return Plan(Path(record) if record else None, name, int(hit or 1))


plan(_from_environment())
