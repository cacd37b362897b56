"""The small demo runs once a session, and sends its traces to a collector; every test here reads that one run."""

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

from openledger_testing.trace_collector import Collector, Span
from servicekit import private

LIMIT_S = 900  # on a machine that does other things; alone it takes two minutes


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Collects the traces of the demo's processes."""
    with Collector() as running:
        yield running


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Path:
    """Returns the folder of a demo run; `watch` kept what was seen of the platform while it ran."""
    out = tmp_path_factory.mktemp("story") / "demo"
    process = subprocess.Popen(
        [sys.executable, "-m", "threat_intel", "demo", "--small", "--fresh", "--out", str(out)],
        env={**os.environ, "OPENLEDGER_OTLP_ENDPOINT": collector.endpoint},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    limit = threading.Timer(LIMIT_S, process.terminate)
    limit.start()
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("6."):  # everything runs by now, and has something to report
            process.send_signal(signal.SIGSTOP)  # the demo waits, the platform does not
            watch(out)
            process.send_signal(signal.SIGCONT)
    process.wait()
    limit.cancel()
    log = out / "state" / "logs" / "platform.log"
    tail = log.read_text(errors="replace")[-6000:] if log.exists() else "no platform log"
    assert process.returncode == 0, f"{''.join(said)[-4000:]}\n{tail}"
    return out


def watch(out: Path) -> None:
    """Keeps what the doctor says of the running platform, what its services expose, and what its files show to others."""
    state = out / "state"
    (out / "exposed.json").write_text(json.dumps([str(path) for path in private.exposed(state)]))
    command = [sys.executable, "-m", "openledger_cli", "--state-dir", str(state), "--json", "doctor"]
    doctor = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    (out / "doctor.json").write_text(
        json.dumps({"code": doctor.returncode, "said": doctor.stdout + doctor.stderr})
    )
    for file in (state / "run").glob("*.json"):
        address = json.loads(file.read_text()).get("metrics")
        if address:
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as page:
                (out / f"{file.stem}.metrics").write_bytes(page.read())


@pytest.fixture(scope="session")
def steps(demo: Path) -> dict[str, dict[str, Any]]:
    """Returns what each step of the demo left, by its name."""
    story = json.loads((demo / "story.json").read_text())
    return {step["step"]: step for step in story["steps"]}


@pytest.fixture(scope="session")
def spans(demo: Path, collector: Collector) -> list[Span]:
    """Returns every span of the demo run: its processes have ended, and sent what they had."""
    return collector.spans
