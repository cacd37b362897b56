"""The platform's log as one view: JSON lines for machines, short lines for people."""

from __future__ import annotations

import json
import sys
from typing import Any

_COLOURS = {"ERROR": "\x1b[31m", "WARNING": "\x1b[33m", "CRITICAL": "\x1b[31m"}
_TRACEBACK = "Traceback (most recent call last):"
_CHAINED = (
    "During handling of the above exception",
    "The above exception was the direct cause",
)


class LogView:
    """Shows lines of all programs and remembers the last one of each.

    A program that does not log JSON, Ray for example, may print a traceback. It is shown as one line, its exception; the
    log file has all of it.
    """

    def __init__(self, as_json: bool, quiet: bool) -> None:
        self._as_json = as_json
        self._quiet = quiet
        self._last: dict[str, str] = {}
        self._colour = sys.stdout.isatty()
        self._in_traceback = False

    def show(self, line: str) -> None:
        """Shows one line of one program."""
        entry = _parse(line)
        if not entry and (self._in_traceback or line.strip() == _TRACEBACK):
            exception = self._exception_in(line)
            if exception is None:
                return
            entry = {"level": "ERROR", "message": exception}
            line = json.dumps(entry)
        message = str(entry.get("message") or entry.get("event") or line)
        self._last[str(entry.get("service", ""))] = message
        level = str(entry.get("level", "INFO")).upper()
        if self._quiet and level not in _COLOURS:
            return
        if self._as_json:
            print(line, flush=True)
            return
        short = f"{str(entry.get('time', ''))[11:19]:8} {entry.get('service', '')!s:12} {message}"
        colour = _COLOURS.get(level, "") if self._colour else ""
        print(f"{colour}{short}\x1b[0m" if colour else short, flush=True)

    def last_line(self, program: str) -> str:
        """Returns the newest message of a program; of any program when it has logged nothing by its name."""
        return self._last.get(program) or self._last.get("", "it logged nothing")

    def _exception_in(self, line: str) -> str | None:
        """Takes a line of a traceback; returns it when it is the exception, which ends it."""
        self._in_traceback = True
        text = line.strip()
        inside = not text or line[0].isspace() or text == _TRACEBACK or text.startswith(_CHAINED)
        if inside:
            return None
        self._in_traceback = False
        return f"{text} (the log file has the traceback)"


def _parse(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
