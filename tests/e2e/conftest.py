"""The story is told once a session, with an OTLP endpoint that sees it; every test here looks at that one telling."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from collector import Collector, Span

LIMIT_S = 900  # on a machine that does other things; alone it takes two minutes


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Where the telling's processes send their traces."""
    with Collector() as running:
        yield running


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Path:
    """A folder in which the story was told once, and was looked at (`watch`) while it was told."""
    out = tmp_path_factory.mktemp("story") / "demo"
    telling = subprocess.Popen(
        [sys.executable, "-m", "threat_intel", "demo", "--small", "--fresh", "--out", str(out)],
        env={**os.environ, "OPENLEDGER_OTLP_ENDPOINT": collector.endpoint},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    limit = threading.Timer(LIMIT_S, telling.terminate)
    limit.start()
    assert telling.stdout is not None
    said = []
    for line in telling.stdout:
        said.append(line)
        if line.startswith("6."):  # everything runs by now, and has something to tell
            telling.send_signal(signal.SIGSTOP)  # the story waits, the platform does not
            watch(out)
            telling.send_signal(signal.SIGCONT)
    telling.wait()
    limit.cancel()
    log = out / "state" / "logs" / "platform.log"
    tail = log.read_text(errors="replace")[-6000:] if log.exists() else "no platform log"
    assert telling.returncode == 0, f"{''.join(said)[-4000:]}\n{tail}"
    return out


def watch(out: Path) -> None:
    """Keeps what the doctor says of the running platform and what its services expose."""
    state = out / "state"
    command = [sys.executable, "-m", "openledger_cli", "--state-dir", str(state), "--json", "doctor"]
    doctor = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    (out / "doctor.json").write_text(
        json.dumps({"code": doctor.returncode, "said": doctor.stdout + doctor.stderr})
    )
    for file in (state / "run").glob("*.json"):
        door = json.loads(file.read_text()).get("metrics")
        if door:
            with urllib.request.urlopen(f"http://{door}/metrics", timeout=30) as page:
                (out / f"{file.stem}.metrics").write_bytes(page.read())


@pytest.fixture(scope="session")
def steps(told: Path) -> dict[str, dict[str, Any]]:
    """What each step of the story left, by its name."""
    story = json.loads((told / "story.json").read_text())
    return {step["step"]: step for step in story["steps"]}


@pytest.fixture(scope="session")
def spans(told: Path, collector: Collector) -> list[Span]:
    """Every span of the telling: its processes have ended, and sent what they had."""
    return collector.spans
