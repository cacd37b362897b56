"""The platform's log as one view: JSON lines for machines, short lines for people."""

from __future__ import annotations

import json
import sys
from typing import Any

_COLOURS = {"ERROR": "\x1b[31m", "WARNING": "\x1b[33m", "CRITICAL": "\x1b[31m"}


class LogView:
    """Shows lines of all programs and remembers each one's last."""

    def __init__(self, as_json: bool, quiet: bool) -> None:
        self._as_json = as_json
        self._quiet = quiet
        self._last: dict[str, str] = {}
        self._colour = sys.stdout.isatty()

    def show(self, line: str) -> None:
        """One line of one program."""
        entry = _parse(line)
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
        """The newest message of a program; of any program when it has said nothing by its name."""
        return self._last.get(program) or self._last.get("", "it said nothing")


def _parse(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
