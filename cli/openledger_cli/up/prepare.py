"""What must be there before the platform starts on a new state folder, made once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from openledger_cli.up.plan import Plan
from servicekit.errors import StartupError
from servicekit.objects import ObjectStore
from servicekit.references import pin

GATE_ITEMS = "gate-items.jsonl"
GATE_ITEMS_DIGEST = "gate-items.digest"
GATE_ITEMS_LIMIT = 1000
"""Items of each suite that contributed data must not contain: far more than a default evaluation samples."""


def prepare(plan: Plan, say: Callable[[str], None]) -> None:
    """Publishes the base model and the evaluation items that contributed records are checked against.

    Raises:
        StartupError: one line with what went wrong.
    """
    state = plan.state_dir
    if not (state / GATE_ITEMS_DIGEST).exists():
        say("exporting the evaluation items that contributed records must not contain")
        _run(
            plan,
            "trainer.evaluation.items",
            "export",
            "--out",
            str(state / GATE_ITEMS),
            "--limit",
            str(GATE_ITEMS_LIMIT),
        )
        location = plan.environment.get("OPENLEDGER_OBJECT_STORE") or os.environ.get(
            "OPENLEDGER_OBJECT_STORE"
        )
        store = ObjectStore(location or str(state / "objects"), cache=state / "objects-cache")
        digest = store.put_bytes((state / GATE_ITEMS).read_bytes())
        pin(store, "pin-gate-items", [digest])  # until a Datanet's policy names them, no service needs them
        _write(state / GATE_ITEMS_DIGEST, digest)
    if not plan.base_digest():
        say(f"publishing the base model {plan.base_model} to the object store (about 20 s the first time)")
        said = _run(
            plan, "trainer.base_models", "import", plan.base_model, "--state-dir", str(plan.state_dir)
        )
        published = re.search(r"sha256:[0-9a-f]{64}", said)
        if published is None:
            raise StartupError(f"trainer.base_models named no digest: {said.strip()}")
        _write(plan.base_marker, published[0])


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def _run(plan: Plan, module: str, *arguments: str) -> str:
    """Runs a module in the services' environment and returns what it printed."""
    environment = {**os.environ, **plan.shared_environment()}
    command = [sys.executable, "-m", module, *arguments]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        lines = (finished.stderr or finished.stdout).strip().splitlines()
        raise StartupError(f"{module} failed: {lines[-1] if lines else 'it said nothing'}")
    return finished.stdout


def gate_items_digest(state_dir: Path) -> str:
    """Digest of the published evaluation items, for a Datanet's policy; "" when there are none."""
    path = state_dir / GATE_ITEMS_DIGEST
    return path.read_text().strip() if path.exists() else ""
