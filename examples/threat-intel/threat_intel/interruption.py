"""A request to stop, kept until it is obeyed.

A KeyboardInterrupt alone can be lost: raised while a library runs one of its callbacks, it is printed there, or not even
that, and lost. So a run also checks for the request at every line that it prints.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass


@dataclass
class Interruption:
    """Ctrl-C, SIGTERM and SIGHUP alike: a polite end, from the last finished step on again."""

    asked: bool = False

    def listen(self) -> None:
        """From now on these signals raise KeyboardInterrupt, in the main thread, and are remembered."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask)

    def check(self) -> None:
        """Raises KeyboardInterrupt when a stop was requested and the run still continues."""
        if self.asked:
            raise KeyboardInterrupt

    def _ask(self, *_: object) -> None:
        self.asked = True
        raise KeyboardInterrupt
