"""What the doctor found, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]

EXIT_CODES: dict[Level, int] = {"ok": 0, "problem": 1, "warning": 2}
"""Exit code of the command, by the worst finding. A script that asks only whether the platform works accepts 0 and 2."""

_SEVERITY: dict[Level, int] = {"ok": 0, "warning": 1, "problem": 2}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check."""

    level: Level
    about: str
    """A service, `chain`, `ray`, `event log` or `machine`."""
    check: str
    """What was checked, in a word or two. It stays the same between releases, for scripts."""
    detail: str
    """What was found, with numbers."""
    remedy: str = ""
    """What to do; "" when there is nothing to do."""


def ok(about: str, check: str, detail: str) -> Finding:
    """Returns a finding that needs no action."""
    return Finding(level="ok", about=about, check=check, detail=detail)


def warning(about: str, check: str, detail: str, remedy: str) -> Finding:
    """Returns a finding that somebody should act on, although the platform works."""
    return Finding(level="warning", about=about, check=check, detail=detail, remedy=remedy)


def problem(about: str, check: str, detail: str, remedy: str) -> Finding:
    """Returns a finding that keeps the platform from working."""
    return Finding(level="problem", about=about, check=check, detail=detail, remedy=remedy)


def unchecked(about: str, check: str, why: str, remedy: str) -> Finding:
    """Returns the finding for a check that could not be made."""
    return warning(about, check, f"not checked: {why}", remedy)


def worst(findings: Iterable[Finding]) -> Level:
    """Returns the level of the worst finding; ok for none."""
    return max((finding.level for finding in findings), key=_SEVERITY.__getitem__, default="ok")
