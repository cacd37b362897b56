"""kill -9 of each service once, in the middle of the step that needs it most, and one Ctrl-C. The supervisor restarts what
was killed; told again, the story goes on; nothing may be lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from anvil import Anvil
from leftovers import processes_of as living
from platform_state import State

from openledger_cli.reconcile.look import look
from openledger_cli.reconcile.places import Places
from openledger_cli.up.plan import supervisor_socket
from openledger_cli.up.supervise import processes_of

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.story]
VICTIMS = {
    "1": "datanet",
    "2": "trainer",
    "3": "ray",
    "4": "inference",
    "5": "attribution",
    "6": "chain_relay",
}
"""Who is killed in which step, once it shows progress."""
HEADING = re.compile(r"(\d)\. ")
PROGRESS = re.compile(r"  .* \d+/\d+")
INTERRUPTED_AT = "5"
"""The step whose heading meets the Ctrl-C."""
TRIES = 3


@dataclass
class Told:
    """A story told while its services were killed."""

    folder: Path
    steps: dict[str, dict[str, Any]]
    killed: list[str]
    codes: list[int]
    """How each telling ended."""
    left: list[str]
    """Processes that the interrupted telling left behind."""
    said: str


def kill(state_dir: Path, name: str) -> None:
    """kill -9 of one program."""
    pid = next(int(p["pid"]) for p in processes_of(supervisor_socket(state_dir)) if p["name"] == name)
    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One telling; what was stopped by a kill is gone on with, as a person would."""
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
                if heading and step == INTERRUPTED_AT and 130 not in codes and "told before" not in line:
                    process.send_signal(signal.SIGINT)
                if step in waiting and PROGRESS.match(line):
                    killed.append(waiting.pop(step))
                    kill(out / "state", killed[-1])
        finally:
            if sys.exc_info()[0] is not None:  # interrupted: the telling ends its platform
                process.terminate()
        codes.append(process.wait())
        if codes[-1] == 130:
            left += living(out)
        if codes[-1] == 0:
            break
    assert (out / "story.json").exists(), "".join(said[-60:])
    story = json.loads((out / "story.json").read_text())
    return Told(out, {step["step"]: step for step in story["steps"]}, killed, codes, left, "".join(said))


@pytest.fixture(scope="module")
def places(told: Told, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """What the telling left behind, its chain brought back to answer."""
    state = State.copied(told.folder / "state", tmp_path_factory.mktemp("left") / "state")
    saved = state.folder / "chain" / "anvil.json"
    with Anvil(
        "--load-state", str(saved), "--chain-id", "31337", "--no-mining", slots_in_an_epoch=2
    ) as chain:
        yield state.places(chain.url)


def test_every_service_was_killed(told: Told) -> None:
    assert sorted(told.killed) == sorted(VICTIMS.values())


def test_a_stopped_telling_leaves_no_process_and_goes_on_from_the_last_finished_step(told: Told) -> None:
    assert told.codes[-2:] == [130, 0]
    assert told.left == []
    assert "run it again to go on" in told.said
    again = told.said.rsplit("OpenLedger demo", 1)[1]
    finished = int(INTERRUPTED_AT) - 1
    assert again.count("(told before)") == finished


def test_nothing_is_lost_doubled_or_on_its_way(places: Places) -> None:
    book = look(places)
    assert book.findings == []
    assert book.seen["batch on chain"] > 0


def test_every_answer_that_was_given_is_attributed(told: Told) -> None:
    answers = [answer["inference"] for answer in told.steps["answer"]["facts"]["answers"]]
    assert set(told.steps["attribute"]["facts"]["records"]) == set(answers)


def test_the_bundle_is_still_verified(told: Told) -> None:
    assert all(finding["passed"] for finding in told.steps["verify"]["facts"]["findings"])
