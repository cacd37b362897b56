"""`openledger base-model ...`: base models of the platform on this machine."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openledger_cli.context import session
from openledger_cli.deferred import Deferred
from openledger_cli.lazy import group

if TYPE_CHECKING:
    from openledger_client import errors, services
else:
    errors = Deferred("openledger_client.errors")
    services = Deferred("openledger_client.services")

app = group("Base models: what models are tuned from.")
_LONGEST_S = 6 * 3600.0


@app.callback()
def _group() -> None:
    """Base models: what models are tuned from."""  # without a callback, a group of one command is that command


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="Folder with config.json, tokenizer.json and safetensors.")],
    name: Annotated[str, typer.Option(help="Its id: a model tuned from it names baseModels/NAME.")],
    licence: Annotated[str, typer.Option(help="SPDX licence expression, e.g. Apache-2.0.")],
    source: Annotated[str, typer.Option(help="Where the weights came from, in words.")] = "",
    new_platform: Annotated[
        bool, typer.Option("--new-platform", help="Begin the state folder, before the first `openledger up`.")
    ] = False,
) -> None:
    """Imports a base model from a folder in Hugging Face's layout. Runs on the machine of the platform, into its state."""
    from openledger_ops.state_folder import require_platform

    program = services.TRAINER.programs["base model folders"]
    if find_spec(program.partition(".")[0]) is None:
        raise errors.ConfigurationError(
            "a base model is imported on the trainer's machine, which has the package openledger-finetune: run this there,"
            f" or python -m {program}",
            reason="NOT_THE_TRAINERS_MACHINE",
        )
    if not new_platform:
        require_platform(session().state_dir)
    words = [str(folder), "--name", name, "--licence", licence, "--source", source]
    words += ["--state-dir", str(session().state_dir), *(["--json"] if session().as_json else [])]
    done = subprocess.run([sys.executable, "-m", program, *words], check=False, timeout=_LONGEST_S)
    raise typer.Exit(done.returncode)
