"""Converts base models and publishes them: as a job at Ray, or as a command on the machine of the control plane.

python -m finetune.import_base_model --run FOLDER                                  # a job, submitted by trainer
python -m finetune.import_base_model smollm2-135m-instruct --state-dir .openledger # registers it as well
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from finetune.watchdog import end_with_parent, exclusive_use
from modelkit import base_model
from servicekit import collector, private
from servicekit.objects import ObjectStore
from trainer.contract import base_models
from trainer.contract.base_models import IMPORTABLE, BaseModel, ImportJob
from trainer.contract.failure import describe, write_failure
from trainer.contract.files import RESULT_FILE, write_json


def publish(id_: str, store: ObjectStore, cache: Path) -> BaseModel:
    """Converts a packaged model and publishes it. Takes 25 s for SmolLM2, under a second when it is done again."""
    with collector.paused():  # imported here: what is published already needs no torch
        from modelkit.weights import gguf_import, tiny
    if id_ == "tiny":
        display_name, digest = "Tiny random-weight Llama", tiny.create_tiny(store)
    else:
        display_name = "SmolLM2 135M Instruct"
        digest = gguf_import.import_gguf(gguf_import.smollm2_gguf(), store, cache)
    manifest = base_model.read_manifest(digest, store)
    return BaseModel(
        id=id_,
        digest=digest,
        display_name=display_name,
        licence=manifest.licence,
        parameter_count=base_model.parameter_count(digest, store),
        source=manifest.source,
    )


def import_base_model(id_: str, state_dir: Path, object_store: str) -> BaseModel:
    """Publishes and registers a model; does nothing when it is registered and the store has it."""
    path = base_models.registered_path(state_dir, id_)
    store = ObjectStore(object_store, cache=state_dir / "cache" / "objects")
    if path.is_file() and store.exists(base_models.read(path).digest):
        return base_models.read(path)
    model = publish(id_, store, state_dir / "trainer" / "cache")
    base_models.register(model, state_dir)
    return model


def run(folder: Path) -> None:
    """Imports what the folder's job file names; the control plane registers the result."""
    if base_models.result(folder) is not None:
        return
    job = ImportJob.read(folder)
    cache = Path(job.cache_dir)
    write_json(
        folder / RESULT_FILE, publish(job.id, ObjectStore(job.object_store, cache=cache / "objects"), cache)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.import_base_model", description="Publishes base models to the object store."
    )
    parser.add_argument("--run", type=Path, help="a job's folder, with its job.json")
    parser.add_argument("names", nargs="*", help=f"base models: {', '.join(IMPORTABLE)}")
    # The defaults are those of the service, so that a command next to it finds the service's folder and store.
    state_dir = os.environ.get("OPENLEDGER_STATE_DIR", ".openledger")
    parser.add_argument("--state-dir", type=Path, default=Path(state_dir), help=f"default: {state_dir}")
    object_store = os.environ.get("OPENLEDGER_OBJECT_STORE", "")
    parser.add_argument(
        "--object-store", default=object_store, help=f"default: {object_store or '<state dir>/objects'}"
    )
    arguments = parser.parse_args()
    private.protect_process()
    if arguments.run is not None:
        _run_job(arguments.run)
        return
    if not arguments.names:
        parser.error(f"name a base model: {', '.join(IMPORTABLE)}")
    registered = {path.stem for path in base_models.registry_folder(arguments.state_dir).glob("*.json")}
    if unknown := sorted(set(arguments.names) - {*IMPORTABLE, *registered}):
        parser.error(f"base model {unknown[0]!r} cannot be imported; there are {', '.join(IMPORTABLE)}")
    for name in arguments.names:
        store = arguments.object_store or str(arguments.state_dir / "objects")
        model = import_base_model(name, arguments.state_dir, store)
        print(f"{model.id}  {model.digest}  {model.parameter_count:,} parameters")


def _run_job(folder: Path) -> None:
    end_with_parent()
    try:
        with exclusive_use(folder):
            run(folder)
    except Exception as error:
        write_failure(folder, describe(error))
        raise


if __name__ == "__main__":
    main()
