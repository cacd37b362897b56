"""kill -9 of each service once, in the middle of the step that needs it most. The supervisor restarts it; nothing may be lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from openledger_cli.up.plan import Plan
from openledger_cli.up.ports import Ports
from openledger_cli.up.supervise import processes_of

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.story]
VICTIMS = {
    "1.": "datanet",
    "2.": "trainer",
    "3.": "ray",
    "4.": "inference",
    "5.": "attribution",
    "6.": "chain_relay",
}
"""The service that is killed when a step's heading is printed."""
TRIES = 3


def kill(state_dir: Path, name: str) -> int:
    """kill -9 of one program; returns the pid that died."""
    ports = Ports({}, {}, 0, 0, 0)
    socket = Plan(state_dir, ports, "tiny", "", state_dir, {}).supervisor_socket()
    pid = next(int(p["pid"]) for p in processes_of(socket) if p["name"] == name)
    os.kill(pid, signal.SIGKILL)
    return pid


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict[str, object]], list[str]]:
    """The story told while its services are killed: its steps, and what was killed."""
    out = tmp_path_factory.mktemp("killed") / "demo"
    waiting = dict(VICTIMS)
    killed: list[str] = []
    said: list[str] = []
    for _ in range(TRIES):  # a telling that ended is gone on with, as a person would
        command = [sys.executable, "-m", "threat_intel", "demo", "--small", "--out", str(out)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            victim = waiting.pop(line[:2], None) if "told before" not in line else None
            if victim:
                kill(out / "state", victim)
                killed.append(victim)
        if process.wait() == 0:
            break
    assert (out / "story.json").exists(), "".join(said[-60:])
    story = json.loads((out / "story.json").read_text())
    return {step["step"]: step for step in story["steps"]}, killed


def test_every_service_was_killed(told: tuple[dict[str, dict[str, object]], list[str]]) -> None:
    assert sorted(told[1]) == sorted(VICTIMS.values())


def test_every_accepted_record_is_in_the_snapshot_once(
    told: tuple[dict[str, dict[str, object]], list[str]],
) -> None:
    facts = told[0]["contribute"]["facts"]
    accepted = sum(
        t["states"].get("accepted", 0) + t["states"].get("present already", 0)
        for t in facts["tallies"].values()
    )  # type: ignore[index]
    in_snapshot = sum(count[0] for count in facts["counts"].values())  # type: ignore[index]
    assert in_snapshot == accepted


def test_every_answer_is_attributed_and_settled_exactly_once(
    told: tuple[dict[str, dict[str, object]], list[str]],
) -> None:
    answers = [a["inference"] for a in told[0]["answer"]["facts"]["answers"]]  # type: ignore[index]
    assert set(told[0]["attribute"]["facts"]["records"]) == set(answers)  # type: ignore[index]
    # An answer that was whole when its service died, but not its stream, is asked again: events may be more, never fewer.
    assert sum(b["events"] for b in told[0]["settle"]["facts"]["batches"]) >= len(answers)  # type: ignore[index]


def test_fees_are_still_paid_out_exactly(told: tuple[dict[str, dict[str, object]], list[str]]) -> None:
    facts = told[0]["settle"]["facts"]
    earned = sum(int(balance["earned"]) for balance in facts["balances"])  # type: ignore[index]
    assert earned + int(facts["dust"]) == int(facts["fee_total"])  # type: ignore[index]


def test_the_bundle_is_still_verified(told: tuple[dict[str, dict[str, object]], list[str]]) -> None:
    assert all(finding["passed"] for finding in told[0]["verify"]["facts"]["findings"])  # type: ignore[index]
