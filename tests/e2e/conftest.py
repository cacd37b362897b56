"""The small demo runs to the promotion of its model once a session, while services are killed, and is interrupted there.

Training is what costs. Two copies continue from there: one undisturbed, which sends its traces to a collector and which most
tests here read; in the other the remaining services are killed (test_kill_each_service.py).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openledger_testing import demo_process
from openledger_testing.demo_process import Killed
from openledger_testing.trace_collector import Collector, Span
from servicekit import private

VICTIMS_BEFORE_PROMOTION = {"1": "datanet", "2": "trainer", "3": "ray"}
"""The program that is killed in each step, once the step shows progress."""
INTERRUPTED_AT = "4"
"""The step at whose heading Ctrl-C is sent."""


@pytest.fixture(scope="session")
def promoted(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Killed:
    """The demo through its first three steps."""
    out = tmp_path_factory.mktemp("promoted") / "demo"
    return demo_process.run_while_killing(
        out,
        VICTIMS_BEFORE_PROMOTION,
        until=demo_process.INTERRUPTED,
        at_heading={INTERRUPTED_AT: demo_process.interrupt},
        environment={"OPENLEDGER_OTLP_ENDPOINT": collector.endpoint},
    )


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Collects the traces of the demo's processes to the promotion, and of the undisturbed copy's from there."""
    with Collector() as running:
        yield running


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, promoted: Killed, collector: Collector) -> Path:
    """Returns the folder of a finished demo; `watch` kept what was seen of the platform while it ran."""
    out = demo_process.copy_stopped(promoted.folder, tmp_path_factory.mktemp("story") / "demo")

    def watched(process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGSTOP)  # the demo waits, the platform does not
        watch(out)
        process.send_signal(signal.SIGCONT)

    ended = demo_process.run_small_demo(
        out,
        at_heading={"6": watched},  # everything runs by now, and has something to report
        environment={"OPENLEDGER_OTLP_ENDPOINT": collector.endpoint},
    )
    log = out / "state" / "logs" / "platform.log"
    tail = log.read_text(errors="replace")[-6000:] if log.exists() else "no platform log"
    assert ended.code == 0, f"{ended.output[-4000:]}\n{tail}"
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
    return demo_process.steps_of(demo)


@pytest.fixture(scope="session")
def spans(demo: Path, collector: Collector) -> list[Span]:
    """Returns every span of the demo's steps: its processes have ended, and sent what they had."""
    return collector.spans
