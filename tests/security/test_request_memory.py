"""Large requests cannot take a service's memory, whoever sends them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCH = Path(__file__).resolve().parents[2] / "bench" / "request_memory.py"


def test_large_requests_of_several_callers_grow_a_service_by_less_than_256_mb() -> None:
    """A third of a gigabyte at once. The bench starts the service and reads the memory of its process."""
    calls = ["--calls", "80", "--mib", "3.9", "--principals", "8"]
    found = subprocess.run(
        [sys.executable, str(BENCH), *calls], capture_output=True, text=True, timeout=600, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
