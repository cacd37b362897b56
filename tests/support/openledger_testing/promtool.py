"""Prometheus's own checker of metrics: names, units, help texts."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from openledger_testing.repository import CACHE


def find_promtool() -> str | None:
    """Returns promtool's path: on the PATH, or where scripts/promtool.sh puts it; None without one."""
    return shutil.which("promtool") or shutil.which(str(CACHE / "promtool" / "usr" / "bin" / "promtool"))


def require_promtool() -> str:
    """Returns promtool's path. Skips the test without one, and says what is then not checked."""
    found = find_promtool()
    if found is None:
        pytest.skip(
            "NOT CHECKED: names, units and help texts of metrics. promtool is missing; see scripts/promtool.sh"
        )
    return found


def problems(page: str) -> list[str]:
    """Returns what `promtool check metrics` reports about a page of /metrics, one problem a line."""
    checked = subprocess.run(
        [require_promtool(), "check", "metrics"], input=page, capture_output=True, text=True, check=False
    )
    return [line for line in (checked.stdout + checked.stderr).splitlines() if line]
