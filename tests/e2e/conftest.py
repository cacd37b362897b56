"""The story is told once a session, with an OTLP endpoint that sees it; every test here looks at that one telling."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from collector import Collector, Span

LIMIT_S = 420


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Where the telling's processes send their traces."""
    with Collector() as running:
        yield running


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Path:
    """A folder in which the story was told once."""
    out = tmp_path_factory.mktemp("story") / "demo"
    finished = subprocess.run(
        [sys.executable, "-m", "threat_intel", "demo", "--small", "--fresh", "--out", str(out)],
        env={**os.environ, "OPENLEDGER_OTLP_ENDPOINT": collector.endpoint},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    log = out / "state" / "logs" / "platform.log"
    tail = log.read_text(errors="replace")[-6000:] if log.exists() else "no platform log"
    assert finished.returncode == 0, f"{finished.stdout[-4000:]}\n{finished.stderr[-2000:]}\n{tail}"
    return out


@pytest.fixture(scope="session")
def steps(told: Path) -> dict[str, dict[str, Any]]:
    """What each step of the story left, by its name."""
    story = json.loads((told / "story.json").read_text())
    return {step["step"]: step for step in story["steps"]}


@pytest.fixture(scope="session")
def spans(told: Path, collector: Collector) -> list[Span]:
    """Every span of the telling: its processes have ended, and sent what they had."""
    return collector.spans
