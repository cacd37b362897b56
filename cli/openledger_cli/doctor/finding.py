"""What the doctor found, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]

EXIT_CODES: dict[Level, int] = {"ok": 0, "problem": 1, "warning": 2}
"""Of the command, by the worst finding: a script that only asks "does it work" takes 0 and 2."""

_SEVERITY: dict[Level, int] = {"ok": 0, "warning": 1, "problem": 2}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    about: str
    """A service, `chain`, `ray`, or `machine`."""
    check: str
    """What was looked at, in a word or two; stable, for scripts."""
    detail: str
    """What was seen, with its numbers."""
    remedy: str = ""
    """What to do; "" when there is nothing to do."""


def worst(findings: Iterable[Finding]) -> Level:
    """The level of the worst; ok for none."""
    return max((finding.level for finding in findings), key=_SEVERITY.__getitem__, default="ok")
