"""What must exist before the platform starts on a new state folder. It is made once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from openledger_client.services import TRAINER
from openledger_ops.state_folder import GATE_ITEMS_DIGEST
from openledger_ops.up.plan import Plan
from servicekit.errors import StartupError
from servicekit.files import write_whole
from servicekit.objects import ObjectStore
from servicekit.objects.references import pin

GATE_ITEMS = "gate-items.jsonl"
GATE_ITEMS_LIMIT = 1000
"""Items of each suite that contributed data must not contain: far more than a default evaluation samples."""
_LONGEST_S = 1800.0
"""A program that prepares the platform imports a model at most."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def prepare(plan: Plan, report: Callable[[str], None]) -> None:
    """Publishes the base model and the evaluation items that contributed records are checked against.

    Raises:
        StartupError: one line with what went wrong.
    """
    state = plan.state_dir
    if not (state / GATE_ITEMS_DIGEST).exists():
        report("exporting the evaluation items that contributed records must not contain")
        items = state / GATE_ITEMS
        _run(
            plan,
            TRAINER.programs["evaluation items"],
            ["export", "--out", str(items), "--limit", str(GATE_ITEMS_LIMIT)],
        )
        store = _store(plan)
        digest = store.put_bytes(items.read_bytes())
        pin(store, "pin-gate-items", [digest])  # no service needs them before a Datanet's policy names them
        _write(state / GATE_ITEMS_DIGEST, digest)
    if not plan.base_digest():
        report(f"publishing the base model {plan.base_model} to the object store (about 20 s the first time)")
        program = TRAINER.programs["base models"]
        output = _run(plan, program, [plan.base_model, "--state-dir", str(state)])
        published = _DIGEST.search(output)
        if published is None:
            raise StartupError(f"{program} printed no digest: {output.strip()}")
        _write(plan.base_marker, published[0])


def _store(plan: Plan) -> ObjectStore:
    name = "OPENLEDGER_OBJECT_STORE"
    location = plan.environment.get(name) or os.environ.get(name)
    return ObjectStore(location or str(plan.state_dir / "objects"), cache=plan.state_dir / "objects-cache")


def _write(path: Path, text: str) -> None:
    write_whole(path, text)


def _run(plan: Plan, program: str, arguments: list[str]) -> str:
    """Runs a program in the services' environment and returns what it printed."""
    environment = {**os.environ, **plan.shared_environment()}
    command = [sys.executable, "-m", program, *arguments]
    try:
        finished = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=_LONGEST_S
        )
    except subprocess.TimeoutExpired:
        raise StartupError(f"{program} has not ended within {_LONGEST_S:.0f} s") from None
    if finished.returncode != 0:
        lines = (finished.stderr or finished.stdout).strip().splitlines()
        raise StartupError(f"{program} failed: {lines[-1] if lines else 'it printed nothing'}")
    return finished.stdout
