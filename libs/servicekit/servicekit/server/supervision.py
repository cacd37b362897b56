"""Watches the process's heartbeats from a thread of its own, and logs which loop is stuck, and on what."""

from __future__ import annotations

import logging
import threading

from servicekit import heartbeats
from servicekit.heartbeats import Trouble

logger = logging.getLogger(__name__)

_EVERY_S = 2.0


class Supervision:
    """Logs one line when a loop becomes stuck and one when it is not any more. Does no work that could hang."""

    def __init__(self) -> None:
        self._stuck: set[str] = set()

    def run(self, stop: threading.Event) -> None:
        """Checks regularly until `stop` is set."""
        while not stop.wait(_EVERY_S):
            self.check()

    def check(self) -> None:
        """Compares the heartbeats with those of the last check."""
        now = {trouble.loop: trouble for trouble in heartbeats.troubles() if trouble.stuck}
        for loop in now.keys() - self._stuck:
            logger.error("stuck: %s", now[loop], extra={"loop": loop, "on": now[loop].on})
        for loop in self._stuck - now.keys():
            logger.warning("%s is not stuck any more", loop, extra={"loop": loop})
        self._stuck = set(now)


def stuck_problem() -> str | None:
    """Returns the loops that are stuck as one line; None when none is."""
    return "; ".join(str(each) for each in heartbeats.troubles() if each.stuck) or None


def described(trouble: Trouble) -> dict[str, object]:
    """Returns a trouble as /readyz shows it."""
    state = "stuck" if trouble.stuck else "failing"
    return {"loop": trouble.loop, "state": state, "for_s": round(trouble.for_s, 1), "on": trouble.on}
