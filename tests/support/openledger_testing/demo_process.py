"""The small demo as a child process. A test acts on it, or on its platform, when a step begins or shows progress."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from openledger_ops.up.plan import supervisor_socket
from openledger_ops.up.supervise import processes_of as programs_of
from openledger_testing.leftover_processes import processes_of
from servicekit.testing.waiting import eventually

LIMIT_S = 900.0
"""Longest run, on a machine that does other things; alone it takes two minutes."""
INTERRUPTED = 130
"""Exit code after Ctrl-C."""
TRIES = 3
"""How often a demo that ended early is started again, as a person would."""
_HEADING = re.compile(r"(\d)\. ")
_PROGRESS = re.compile(r"  .* \d+/\d+")
_RUN_TIME = shutil.ignore_patterns("ray", "run")

Action = Callable[[subprocess.Popen[str]], None]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A run that has ended."""

    code: int
    output: str
    left: list[str]
    """Processes that it left behind."""


@dataclass(frozen=True, kw_only=True)
class Killed:
    """A demo whose platform lost programs to kill -9."""

    folder: Path
    programs: list[str]
    """The killed ones, in order."""
    runs: list[Ended]

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        """What each step left, by its name."""
        return steps_of(self.folder)


def run_small_demo(
    out: Path,
    *,
    at_heading: Mapping[str, Action] | None = None,
    at_progress: Mapping[str, Action] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Runs the small demo in the folder `out` from its last finished step on, and returns how it ended.

    Args:
        out: The demo's folder.
        at_heading: What to do when a step begins, by its number.
        at_progress: What to do when a step first shows progress, by its number.
        environment: Variables in addition to those of this process.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "threat_intel", "demo", "--small", "--out", str(out)],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    limit = threading.Timer(LIMIT_S, process.terminate)
    limit.start()
    try:
        output = _follow(process, dict(at_heading or {}), dict(at_progress or {}))
        return Ended(code=process.wait(), output=output, left=processes_of(out))
    finally:
        limit.cancel()
        if (
            process.poll() is None
        ):  # an action failed, or the tests were interrupted: the demo ends its platform
            process.terminate()
            process.wait()


def _follow(
    process: subprocess.Popen[str], at_heading: dict[str, Action], at_progress: dict[str, Action]
) -> str:
    assert process.stdout is not None
    lines: list[str] = []
    step = ""
    for line in process.stdout:
        lines.append(line)
        if heading := _HEADING.match(line):
            step = heading[1]
        due = at_heading if heading else at_progress if _PROGRESS.match(line) else {}
        if step in due and "(finished before)" not in line:
            due.pop(step)(process)
    return "".join(lines)


def run_while_killing(
    out: Path,
    victims: Mapping[str, str],
    *,
    until: int = 0,
    at_heading: Mapping[str, Action] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Killed:
    """Runs the small demo, and kills one program of its platform in each step that shows progress.

    Args:
        out: The demo's folder.
        victims: The program to kill, by the step's number; each is killed once.
        until: The exit code with which the last run ends.
        at_heading: As in `run_small_demo`.
        environment: As in `run_small_demo`.
    """
    killed: list[str] = []
    runs: list[Ended] = []

    def strike(program: str, _: object) -> None:
        killed.append(program)
        kill(out / "state", program)

    while len(runs) < TRIES and (not runs or runs[-1].code != until):
        waiting = {
            step: partial(strike, program) for step, program in victims.items() if program not in killed
        }
        runs.append(run_small_demo(out, at_heading=at_heading, at_progress=waiting, environment=environment))
    assert runs[-1].code == until, runs[-1].output[-4000:]
    return Killed(folder=out, programs=killed, runs=runs)


def interrupt(process: subprocess.Popen[str]) -> None:
    """Sends what Ctrl-C sends."""
    process.send_signal(signal.SIGINT)


def kill(state_dir: Path, program: str) -> None:
    """kill -9 of one program of a running platform, once it runs: while it is restarted, supervisord says that its pid is 0."""

    def pid() -> int:
        return sum(
            each["pid"] for each in programs_of(supervisor_socket(state_dir)) if each["name"] == program
        )

    os.kill(eventually(pid, f"the process of {program}"), signal.SIGKILL)


def copy_stopped(out: Path, to: Path) -> Path:
    """Copies the folder of a demo that is not running, without what lives only while it runs; returns the copy."""
    shutil.copytree(out, to, ignore=_RUN_TIME, symlinks=True)
    return to


def steps_of(out: Path) -> dict[str, dict[str, Any]]:
    """Returns what each step of a finished demo left, by its name."""
    story = json.loads((out / "story.json").read_text())
    return {step["step"]: step for step in story["steps"]}
