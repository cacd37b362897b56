"""Runs the `openledger` command, as a user would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from openledger_client.errors import FailedPrecondition
from threat_intel.people import Person

LONGEST_S = 300.0


def openledger(state_dir: Path, person: Person, *arguments: str) -> Any:
    """Runs one command as a person and returns the JSON that it prints.

    Raises:
        FailedPrecondition: it failed; the message is the command's own.
    """
    name, roles = person
    command = [
        *(sys.executable, "-m", "openledger_cli", "--json"),
        *("--state-dir", str(state_dir), "--as", f"{name}:{','.join(roles)}"),
        *arguments,
    ]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    if finished.returncode != 0:
        raise FailedPrecondition(
            f"openledger {' '.join(arguments)}: {finished.stderr.strip()}", reason="COMMAND_FAILED"
        )
    return json.loads(finished.stdout)
