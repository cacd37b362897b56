"""Responses that nobody reads cannot take a service's memory, and others are answered meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCH = Path(__file__).resolve().parents[2] / "bench" / "response_memory.py"


def test_pages_that_are_not_read_grow_a_service_by_less_than_512_mb() -> None:
    """Without a bound these take 1.8 GB. The bench starts the service and reads the memory of its process."""
    found = subprocess.run(
        [sys.executable, str(BENCH), "--calls", "200"],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
