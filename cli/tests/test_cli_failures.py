"""A failure says where the call went, and a command that tries again says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from openledger_cli import context
from openledger_cli.__main__ import app
from openledger_cli.caller import SaidOnce
from openledger_cli.failures import report
from openledger_client.errors import Unavailable


def test_a_call_that_nobody_answered_names_service_address_and_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "_session", None)  # another test's may want JSON
    peer = {"service": "trainer", "address": "h:1", "variable": "OPENLEDGER_TRAINER_ADDRESS"}
    assert report(Unavailable("refused", metadata=peer)) == 1
    said = "openledger: UNAVAILABLE: refused; trainer was called at h:1: check OPENLEDGER_TRAINER_ADDRESS\n"
    assert capsys.readouterr().err == said


def test_long_waits_for_an_answer_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    waits: list[float] = []
    sleep = SaidOnce(waits.append)
    sleep(2.0)
    assert capsys.readouterr().err == ""
    for _ in range(3):
        sleep(2.0)
    assert capsys.readouterr().err == "openledger: no answer, trying again for up to 30 s; Ctrl-C stops\n"
    assert waits == [2.0] * 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["status"], ["--json", "status"]])
def test_an_output_that_cannot_be_written_is_one_line(words: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "openledger_cli", "--state-dir", str(tmp_path), *words]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=300
        )
    assert (done.returncode, done.stderr) == (1, "openledger: cannot write: No space left on device\n")


@pytest.mark.parametrize(
    ("definition", "warned"),
    [
        ('licence = "NOASSERTION"', ["licence is NOASSERTION", "description is empty"]),
        ('licence = "MIT"\ndescription = "Claims."', []),
    ],
)
def test_what_a_datanet_keeps_for_ever_and_may_not_be_meant_is_warned_of(
    definition: str, warned: list[str], tmp_path: Path
) -> None:
    (tmp_path / "d.toml").write_text(definition)
    words = ["--state-dir", str(tmp_path), "datanet", "create", "d", "-d", str(tmp_path / "d.toml")]
    lines = CliRunner().invoke(app, words).stderr.splitlines()
    assert len(lines) == len(warned)
    for line, text in zip(lines, warned, strict=True):
        assert line.startswith("openledger: warning: ")
        assert text in line


def test_an_interrupt_while_the_command_loads_prints_nothing() -> None:
    program = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from openledger_cli.entry import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
