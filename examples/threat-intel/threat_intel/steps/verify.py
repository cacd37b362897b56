"""Step 7: a separate command rechecks the story from a bundle and an RPC address alone; a changed byte makes it fail."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from openledger_client.errors import FailedPrecondition
from threat_intel.command import openledger
from threat_intel.people import AUDITOR
from threat_intel.run import Outcome, Run


def execute(run: Run) -> Outcome:
    """Exports, verifies, changes a byte, verifies again."""
    outcome = Outcome()
    bundle = run.folder / "bundle"
    inference = next(
        a["inference"] for a in run.result("answer")["answers"] if a["model"].startswith("models/")
    )
    account = run.result("settle")["account"]
    files = openledger(
        run.platform.state_dir,
        AUDITOR,
        *("export", inference),
        *("--account", account),
        *("--out", str(bundle)),
    )["files"]
    rpc = run.platform.endpoints["chain"]
    begun = time.monotonic()
    code, findings = _verify(bundle, rpc, _contracts(run))
    wall_s = time.monotonic() - begun
    for finding in findings:
        mark = "[green]ok    [/green]" if finding["passed"] else "[red]FAILED[/red]"
        run.say(f"{mark} {finding['check']}: {finding['detail'][:150]}")
    if code != 0:
        raise FailedPrecondition(
            "; ".join(
                f["detail"] if not f["passed"] else f["unchecked"]
                for f in findings
                if not f["passed"] or f["unchecked"]
            ),
            reason="BUNDLE_REFUSED",
            subject=str(bundle),
        )
    names = [Path(file).name for file in files]
    # Each run is a process of its own, and one change in each of some files shows it; tests change them all.
    caught, where = _tamper(run, bundle, names[::2] if run.scale.name == "full" else names[::4], rpc)
    figures = outcome.figures
    figures.add("checks passed", len(findings), "checks", "openledger verify")
    figures.add("verification time", round(wall_s, 2), "s", "timed, one process")
    figures.add(
        "files changed by one byte and caught",
        caught,
        f"of {len(where)} files",
        "openledger verify, one run a file",
    )
    outcome.facts = {"inference": inference, "findings": findings, "where": where}
    return outcome


def _tamper(run: Run, bundle: Path, names: list[str], rpc: str) -> tuple[int, dict[str, str]]:
    """Changes one byte in the middle of each file of a copy and verifies. Raises FailedPrecondition when one goes unseen."""
    with (
        run.progress("changed files verified", len(names)) as bar,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        where: dict[str, str] = {}
        for name, said in zip(names, pool.map(lambda name: _changed(bundle, name, rpc), names), strict=True):
            where[name] = said
            bar.at(len(where), len(names))
    name = names[len(names) // 2]
    run.say(
        f"one byte changed in each of {len(names)} files: every change was caught, e.g. {where[name][:140]}"
    )
    return len(where), where


def _changed(bundle: Path, name: str, rpc: str) -> str:
    """What verification says of a copy in which one byte of a file is another."""
    copy = bundle.with_name(f"bundle-changed-{name}")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(bundle, copy)
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    code, findings = _verify(copy, rpc)
    shutil.rmtree(copy)
    failed = [f for f in findings if not f["passed"]]
    if code == 0 or not failed:
        raise FailedPrecondition(
            f"a changed byte in {name} was not noticed", reason="CHANGE_NOT_NOTICED", subject=name
        )
    return f"{failed[0]['check']}: {failed[0]['detail']}"


def _contracts(run: Run) -> list[str]:
    """Returns the options that name the contracts. A verifier elsewhere has them from what the platform has published."""
    info = openledger(run.platform.state_dir, AUDITOR, "settle", "info")
    named = ("registry", "ledger", "distributor")
    return [part for name in named for part in (f"--{name}", str(info[f"{name}_address"]))]


def _verify(bundle: Path, rpc: str, contracts: Sequence[str] = ()) -> tuple[int, list[dict[str, Any]]]:
    """Runs the separate command in a process of its own, with an empty state folder."""
    command = [
        sys.executable,
        "-m",
        "openledger_cli",
        "--json",
        "--state-dir",
        str(bundle / "no-state"),
        "verify",
        str(bundle),
        "--rpc",
        rpc,
        *contracts,
    ]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    try:
        findings: list[dict[str, Any]] = json.loads(finished.stdout)
    except ValueError:
        findings = [{"check": "start", "passed": False, "detail": finished.stderr.strip(), "unchecked": ""}]
    return finished.returncode, findings
