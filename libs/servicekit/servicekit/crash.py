"""Crash points: the places, before and after every durable step, where a process may be told to die.

A durable step is one that survives the process: a commit, a rename, a send, a submission. Whatever is between two of them is
lost with a kill, so these are all the states that a restart can find. The primitives through which all durable steps go
(`database.transaction`, `files`, `objects`, `eventlog`, `wal`, ...) call `point` before and after; the point's name is the
function that used the primitive, so a new use of one is a new point without anybody listing it:

    datanet.intake:Inlet.take before commit

A durable step that goes through no primitive says so itself, with `step`. `tests/crash` finds steps that do not, records
the points that each service comes by, kills a process at every one and looks at what its successor makes of it.

Nothing is armed unless a test asks: by `plan`, or for another process by the environment. Unarmed, a point costs one
comparison.

    OPENLEDGER_CRASH_RECORD=FILE       appends the name of each point to FILE, in order
    OPENLEDGER_CRASH_AT=POINT#N        ends the process, without cleaning up, when it comes by POINT for the Nth time
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
"""As of a process that was killed by SIGKILL, as a shell reports it."""

_INSTALLED = f"{os.sep}site-packages{os.sep}"


class Plan:
    """What a process does at its crash points."""

    def __init__(self, record: Path | None = None, die_at: str = "", on_hit: int = 1) -> None:
        """Records to `record`; dies when it comes by the point named `die_at` for the `on_hit`th time."""
        self._file = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if record else -1
        self._die_at = die_at
        self._on_hit = on_hit
        self._hits: Counter[str] = Counter()
        self._lock = threading.Lock()

    def reached(self, name: str) -> None:
        """The process is at a point. Returns, or does not."""
        with self._lock:
            self._hits[name] += 1
            if self._file >= 0:
                os.write(self._file, f"{name}\n".encode())
            if name == self._die_at and self._hits[name] == self._on_hit:
                os._exit(EXIT_CODE)


_plan: Plan | None = None
_primitives: set[str] = {__name__}


def plan(made: Plan | None) -> None:
    """What this process does at its points from now on; None: nothing, as it is unless somebody asks."""
    global _plan
    _plan = made


def primitive(module: str) -> None:
    """Says that a module only takes durable steps for its callers: points in it bear the caller's name."""
    _primitives.add(module)


def point(name: str) -> None:
    """Here a process may die. `name` says before or after what."""
    if _plan is not None:
        _plan.reached(f"{_whose()} {name}")


@contextmanager
def step(what: str) -> Iterator[None]:
    """A durable step: a point before it and one after it. An exception passes; there is no point after what failed."""
    point(f"before {what}")
    yield
    point(f"after {what}")


def _whose() -> str:
    """`module:function` of the nearest frame of ours that is not a primitive; of the outermost primitive if none is."""
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
