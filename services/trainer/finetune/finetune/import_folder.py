"""Imports a base model from a folder of this machine, and registers it with the control plane of the same state folder.

python -m finetune.import_folder FOLDER --name my-base --licence Apache-2.0 --state-dir .openledger
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from dataclasses import asdict
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from modelkit.base_folder import RefusedFolder
from servicekit import collector, private
from servicekit.errors import DomainError, StartupError
from servicekit.objects import ObjectStore
from trainer.contract import base_models
from trainer.contract.base_models import IMPORTABLE, BaseModel

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")


def import_folder(
    folder: Path, *, name: str, licence: str, source: str, state_dir: Path, object_store: str
) -> BaseModel:
    """Publishes and registers a model; importing the same folder again changes nothing.

    Raises RefusedFolder for the folder, the name or the licence, with what would be right.
    """
    if not _NAME.fullmatch(name) or name in IMPORTABLE:
        taken = f"{', '.join(IMPORTABLE)} are packaged models; " if name in IMPORTABLE else ""
        raise RefusedFolder(
            f"--name {name!r}: {taken}choose 1 to 63 of a-z, 0-9, '.' and '-', beginning with a letter or digit"
        )
    spdx = checked_licence(licence)
    with collector.paused():  # imported here: what is wrong with a name needs no torch
        from modelkit.weights import folder_import
    store = ObjectStore(object_store, cache=state_dir / "cache" / "objects")
    made = folder_import.import_folder(
        folder,
        name=name,
        licence=spdx,
        source=source or "imported from a folder",
        store=store,
        scratch=state_dir / "trainer" / "cache",
    )
    model = BaseModel(
        id=name,
        digest=made.digest,
        display_name=f"{name} ({made.architecture})",
        licence=spdx,
        parameter_count=made.parameter_count,
        source=source or "imported from a folder",
        linear_modules=made.linear_modules,
    )
    path = base_models.registered_path(state_dir, name)
    if path.is_file() and base_models.read(path).digest != model.digest:
        raise RefusedFolder(
            f"--name {name!r} is {base_models.read(path).digest}, this folder {model.digest}; choose another name: what"
            " was tuned on a base names it by that name"
        )
    base_models.register(model, state_dir)
    return model


def checked_licence(licence: str) -> str:
    """Returns an SPDX licence expression in its canonical form. Raises RefusedFolder for anything else."""
    try:
        return str(canonicalize_license_expression(licence))
    except InvalidLicenseExpression:
        raise RefusedFolder(
            f"--licence {licence!r} is no SPDX licence expression; for example Apache-2.0, MIT, or LicenseRef-NAME for a"
            " licence that SPDX does not list"
        ) from None


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.import_folder",
        description="Imports a base model from a folder in Hugging Face's layout, on the trainer's machine.",
    )
    parser.add_argument("folder", type=Path, help="with config.json, tokenizer.json and safetensors")
    parser.add_argument("--name", required=True, help="its id, of baseModels/{id}")
    parser.add_argument("--licence", required=True, help="SPDX licence expression, e.g. Apache-2.0")
    parser.add_argument("--source", default="", help="where the weights came from, in words")
    state_dir = os.environ.get("OPENLEDGER_STATE_DIR", ".openledger")
    parser.add_argument("--state-dir", type=Path, default=Path(state_dir), help=f"default: {state_dir}")
    object_store = os.environ.get("OPENLEDGER_OBJECT_STORE", "")
    parser.add_argument(
        "--object-store", default=object_store, help=f"default: {object_store or '<state dir>/objects'}"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    private.protect_process()
    try:
        model = import_folder(
            given.folder,
            name=given.name,
            licence=given.licence,
            source=given.source,
            state_dir=given.state_dir,
            object_store=given.object_store or str(given.state_dir / "objects"),
        )
    except (RefusedFolder, DomainError, StartupError, OSError) as error:
        print(f"not imported: {error}", file=sys.stderr)
        sys.exit(1)
    if given.json:
        print(json.dumps(asdict(model)))
    else:
        print(f"baseModels/{model.id}  {model.digest}  {model.parameter_count:,} parameters, {model.licence}")
        print(f"adapters on {', '.join(model.linear_modules)}")


if __name__ == "__main__":
    main()
