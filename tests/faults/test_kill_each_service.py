"""kill -9 of each service once, in the middle of the step that needs it most, and one Ctrl-C. The supervisor restarts what
was killed; started again, the demo continues; nothing may be lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openledger_ops.reconcile.book import Book
from openledger_ops.reconcile.reconciliation import Sources, iteration
from openledger_ops.up.plan import supervisor_socket
from openledger_ops.up.supervise import processes_of
from openledger_testing.anvil import Anvil
from openledger_testing.audit_rig import AuditRig
from openledger_testing.leftover_processes import processes_of as living
from openledger_testing.state_copy import State

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.story]
VICTIMS = {
    "1": "datanet",
    "2": "trainer",
    "3": "ray",
    "4": "inference",
    "5": "attribution",
    "6": "chain_relay",
}
"""The service that is killed in each step, once the step shows progress."""
HEADING = re.compile(r"(\d)\. ")
PROGRESS = re.compile(r"  .* \d+/\d+")
INTERRUPTED_AT = "5"
"""The step at whose heading Ctrl-C is sent."""
TRIES = 3


@dataclass(kw_only=True)
class Interrupted:
    """A demo that ran while its services were killed, and was interrupted once."""

    folder: Path
    steps: dict[str, dict[str, Any]]
    killed: list[str]
    codes: list[int]
    """The exit code of each run."""
    left: list[str]
    """Processes that the interrupted run left behind."""
    said: str


def kill(state_dir: Path, name: str) -> None:
    """kill -9 of one program."""
    pid = next(int(p["pid"]) for p in processes_of(supervisor_socket(state_dir)) if p["name"] == name)
    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    """Runs the demo; a run that was stopped is started again, as a person would."""
    out = tmp_path_factory.mktemp("killed") / "demo"
    waiting = dict(VICTIMS)
    killed: list[str] = []
    said: list[str] = []
    codes: list[int] = []
    left: list[str] = []
    step = ""
    for _ in range(TRIES):
        command = [sys.executable, "-m", "threat_intel", "demo", "--small", "--out", str(out)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        try:
            for line in process.stdout:
                said.append(line)
                heading = HEADING.match(line)
                step = heading[1] if heading else step
                if (
                    heading
                    and step == INTERRUPTED_AT
                    and 130 not in codes
                    and "(finished before)" not in line
                ):
                    process.send_signal(signal.SIGINT)
                if step in waiting and PROGRESS.match(line):
                    killed.append(waiting.pop(step))
                    kill(out / "state", killed[-1])
        finally:
            if sys.exc_info()[0] is not None:  # interrupted: the demo ends its platform
                process.terminate()
        codes.append(process.wait())
        if codes[-1] == 130:
            left += living(out)
        if codes[-1] == 0:
            break
    assert (out / "story.json").exists(), "".join(said[-60:])
    story = json.loads((out / "story.json").read_text())
    return Interrupted(
        folder=out,
        steps={step["step"]: step for step in story["steps"]},
        killed=killed,
        codes=codes,
        left=left,
        said="".join(said),
    )


@pytest.fixture(scope="module")
def book(demo: Interrupted, tmp_path_factory: pytest.TempPathFactory) -> Book:
    """Returns a reconciliation of what the demo left behind, with its chain started again."""
    state = State.copied(demo.folder / "state", tmp_path_factory.mktemp("left") / "state")
    saved = state.folder / "chain" / "anvil.json"
    with (
        Anvil("--load-state", str(saved), "--chain-id", "31337", "--no-mining", slots_in_an_epoch=2) as chain,
        AuditRig() as rig,
    ):
        rig.show(state.folder)
        sources = Sources(
            client=rig.client, event_log=state.event_log, rpc=chain.url, contracts=state.contracts
        )
        return iteration(sources)


def test_every_service_was_killed(demo: Interrupted) -> None:
    assert sorted(demo.killed) == sorted(VICTIMS.values())


def test_a_stopped_demo_leaves_no_process_and_continues_after_the_last_finished_step(
    demo: Interrupted,
) -> None:
    assert demo.codes[-2:] == [130, 0]
    assert demo.left == []
    assert "run it again to continue" in demo.said
    again = demo.said.rsplit("OpenLedger demo", 1)[1]
    finished = int(INTERRUPTED_AT) - 1
    assert again.count("(finished before)") == finished


def test_nothing_is_lost_doubled_or_waiting(book: Book) -> None:
    assert book.findings == []
    assert book.checked["batch on chain"] > 0


def test_every_answer_that_was_given_is_attributed(demo: Interrupted) -> None:
    answers = [answer["inference"] for answer in demo.steps["answer"]["facts"]["answers"]]
    assert set(demo.steps["attribute"]["facts"]["records"]) == set(answers)


def test_the_bundle_is_still_verified(demo: Interrupted) -> None:
    assert all(finding["passed"] for finding in demo.steps["verify"]["facts"]["findings"])
