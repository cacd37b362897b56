"""Heartbeats of background work: what each loop does, since when, how long a step may take, and what fails.

A loop that hangs cannot report that it hangs. So a loop only stores when its step began, and others compute the age: /metrics
at each scrape, /readyz at each request, and a supervising thread that logs (`servicekit.server.supervision`).

    heartbeat = Heartbeat("outbox")
    with heartbeat.step():
        publish()

A dependency without a loop of its own (signing keys, the object store) uses `failed` and `succeeded` only. While it fails, a
service asks it again by its `recheck`: otherwise it would be named for as long as no caller needs it, however well it is.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from servicekit.errors import Unavailable
from servicekit.telemetry.metrics import gauge

P = ParamSpec("P")
T = TypeVar("T")

STEP_BOUND_S = 60.0
"""How long a step of a loop may take by default. Every call within a step has a shorter deadline (`servicekit.deadlines`)."""

_LONGEST_REASON = 300
_INSTALLED = "site-packages"
_HERE = Path(__file__).name

_ALL: weakref.WeakSet[Heartbeat] = weakref.WeakSet()
_lock = threading.Lock()

STEP_AGE_S = gauge(
    "openledger_loop_step_age_seconds",
    "How long the current step of a background loop has run; 0 between steps. Computed at each scrape, so a loop that hangs"
    " cannot hide it",
    ["loop"],
)
FAILING_S = gauge(
    "openledger_loop_failing_seconds",
    "How long a background loop or a dependency has failed without a success; 0 while it works. Computed at each scrape",
    ["loop"],
)


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """A loop that hangs, or that fails again and again."""

    loop: str
    stuck: bool
    """Whether its step exceeds its bound; otherwise it fails, and retries."""
    for_s: float
    on: str
    """What it waits on, or the error."""

    def __str__(self) -> str:
        if self.stuck:
            return f"{self.loop} has been in one step for {self.for_s:.0f} s, at {self.on}"
        return f"{self.loop} has failed for {self.for_s:.0f} s: {self.on}"


class Heartbeat:
    """Of one loop or dependency. One thread at a time calls `step`; any thread calls the rest.

    Args:
        name: as in logs and metrics; several instances may share it.
        bound_s: how long a step may take before the loop counts as stuck.
        recheck: a method that uses the dependency, and thereby calls `failed` or `succeeded`; it may raise what using it raises.
    """

    def __init__(
        self, name: str, bound_s: float = STEP_BOUND_S, *, recheck: Callable[[], object] | None = None
    ) -> None:
        self.name = name
        self.bound_s = bound_s
        # Weak: its owner has this heartbeat, and both are to end when the owner does.
        self._recheck = None if recheck is None else weakref.WeakMethod(recheck)
        self._began: float | None = None
        self._thread = 0
        self._failing_since: float | None = None
        self._reason = ""
        with _lock:
            _ALL.add(self)
        STEP_AGE_S.labels(name).set_function(lambda: _longest(name, Heartbeat.age_s))
        FAILING_S.labels(name).set_function(lambda: _longest(name, Heartbeat.failing_s))

    @contextmanager
    def step(self) -> Iterator[None]:
        """Wraps one step, in the thread that runs it. Time outside of steps does not count."""
        self._thread = threading.get_ident()
        self._began = time.monotonic()
        try:
            yield
        finally:
            self._began = None

    def watched(self, work: Callable[P, T]) -> Callable[P, T]:
        """Returns the function as one step: it counts as a success when it returns."""

        def step(*args: P.args, **kwargs: P.kwargs) -> T:
            with self.step():
                result = work(*args, **kwargs)
            self.succeeded()
            return result

        return step

    def failed(self, error: object) -> None:
        """Records a failure. The first one since the last success counts as the beginning."""
        self._reason = _reason(error)
        if self._failing_since is None:
            self._failing_since = time.monotonic()

    def succeeded(self) -> None:
        """Records that it works."""
        self._failing_since = None

    def recheck(self) -> None:
        """Uses the dependency, if it fails and can be rechecked."""
        use = self._recheck() if self._recheck is not None and self._failing_since is not None else None
        if use is not None:
            with suppress(Unavailable):
                use()

    def close(self) -> None:
        """Ends it: the loop has stopped."""
        self._began = self._failing_since = None
        with _lock:
            _ALL.discard(self)

    def age_s(self) -> float:
        """Returns how long the current step has run; 0 between steps."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    def failing_s(self) -> float:
        """Returns how long ago the first failure since the last success was; 0 while it works."""
        since = self._failing_since
        return 0.0 if since is None else time.monotonic() - since

    def trouble(self) -> Trouble | None:
        """Returns what is wrong; None when all is well."""
        age_s = self.age_s()
        if age_s > self.bound_s:
            return Trouble(loop=self.name, stuck=True, for_s=age_s, on=_position_of(self._thread))
        failing_s = self.failing_s()
        if failing_s:
            return Trouble(loop=self.name, stuck=False, for_s=failing_s, on=self._reason)
        return None


def _reason(error: object) -> str:
    """Returns an error's text, and of an outage its cause: what callers are told names no database, what its driver says does."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Unavailable) and error.__cause__ is not None:
        first = str(error.__cause__).strip().partition("\n")[0]
        text = text if first in text else f"{text}: {first}"
    return text[:_LONGEST_REASON]


def troubles() -> list[Trouble]:
    """Returns what is wrong in this process, the longest first. Waits for nothing."""
    found = (each.trouble() for each in _all())
    return sorted((each for each in found if each is not None), key=lambda each: -each.for_s)


def recheck_failing() -> None:
    """Uses every dependency that fails. Waits for them."""
    for each in _all():
        each.recheck()


def _all() -> list[Heartbeat]:
    with _lock:
        return list(_ALL)


def _longest(name: str, of: Callable[[Heartbeat], float]) -> float:
    return max((of(each) for each in _all() if each.name == name), default=0.0)


def _position_of(thread: int) -> str:
    """Returns where a thread is: the innermost function, and the innermost line of code that is not a library's."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "a thread that has ended"
    innermost = f"{frame.f_code.co_name} ({Path(frame.f_code.co_filename).name})"
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        ours = _INSTALLED not in path.parts and not str(path).startswith((sys.base_prefix, "<"))
        if ours and path.name != _HERE:
            return f"{innermost}, called by {frame.f_code.co_name} ({path.parent.name}/{path.name}:{frame.f_lineno})"
        frame = frame.f_back
    return innermost
