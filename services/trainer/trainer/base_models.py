"""Base models that can be tuned: imported once into the object store, registered by a file each.

    python -m trainer.base_models import smollm2-135m-instruct --state-dir .openledger

Importing needs torch, so it runs in a process of its own: the service starts one for each model that its
settings name and that is not registered yet. Two imports of one model at once end with the same objects and
the same file.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from identity.names import BaseModelName
from servicekit import backoff
from servicekit.errors import FailedPrecondition, NotFound, StartupError
from servicekit.files import write_whole
from servicekit.objects import ObjectStore

logger = logging.getLogger(__name__)

IMPORTABLE = ("smollm2-135m-instruct", "tiny")


@dataclass(frozen=True)
class BaseModel:
    """A registered base model."""

    id: str
    """Of `baseModels/{id}`."""
    digest: str
    display_name: str
    licence: str
    parameter_count: int
    source: str


class BaseModels:
    """The registered base models of a state folder, and those that are on their way."""

    def __init__(self, state_dir: Path, offered: Sequence[str]) -> None:
        if unknown := sorted(set(offered) - set(IMPORTABLE)):
            raise StartupError(
                f"base model {unknown[0]!r} cannot be imported; there are {', '.join(IMPORTABLE)}"
            )
        self._folder = registry_folder(state_dir)
        self._offered = offered

    def registered(self) -> list[BaseModel]:
        """All that are registered, by id."""
        return [_read(path) for path in sorted(self._folder.glob("*.json"))]

    def get(self, name: BaseModelName) -> BaseModel:
        """Raises NotFound, or FailedPrecondition while it is being imported."""
        path = self._folder / f"{name.base_model}.json"
        if path.is_file():
            return _read(path)
        if name.base_model in self._offered:
            raise FailedPrecondition(
                "BASE_MODEL_IMPORTING",
                f"base model {str(name)!r} is being imported; try again in a minute",
                subject=str(name),
            )
        raise NotFound("base model", str(name))

    def missing(self) -> list[str]:
        """Offered, and not registered yet."""
        return [name for name in self._offered if not (self._folder / f"{name}.json").is_file()]

    def import_missing(self, state_dir: Path, object_store: str, stop: threading.Event) -> None:
        """Imports what is missing, one after the other, and again after a failure; returns when `stop` is
        set."""
        failures = 0
        while not stop.is_set():
            missing = self.missing()
            if not missing:
                stop.wait()
                return
            command = [sys.executable, "-m", "trainer.base_models", "import", missing[0]]
            command += ["--state-dir", str(state_dir), "--object-store", object_store]
            logger.info("importing a base model", extra={"base_model": missing[0]})
            if _run(command, stop) == 0 or stop.is_set():
                continue
            failures += 1
            logger.error("a base model could not be imported", extra={"base_model": missing[0]})
            backoff.wait(stop, failures)


def import_base_model(id_: str, state_dir: Path, object_store: str) -> BaseModel:
    """Imports and registers a model; does nothing when it is registered and the store has it."""
    path = registry_folder(state_dir) / f"{id_}.json"
    store = ObjectStore(object_store, cache=state_dir / "cache" / "objects")
    if path.is_file() and store.exists(_read(path).digest):
        return _read(path)
    model = _import(id_, store, state_dir / "trainer" / "cache")
    write_whole(path, json.dumps(asdict(model), indent=1))
    return model


def registry_folder(state_dir: Path) -> Path:
    """Where the files of registered models lie."""
    return state_dir / "trainer" / "base_models"


def _import(id_: str, store: ObjectStore, cache: Path) -> BaseModel:
    from modelkit import base_model, gguf_import, tiny

    if id_ == "tiny":
        display_name, digest = "Tiny random-weight Llama", tiny.create_tiny(store)
    else:
        display_name = "SmolLM2 135M Instruct"
        digest = gguf_import.import_gguf(gguf_import.smollm2_gguf(), store, cache)
    manifest = base_model.read_manifest(digest, store)
    parameters = base_model.parameter_count(digest, store)
    return BaseModel(id_, digest, display_name, manifest.licence, parameters, manifest.source)


def _read(path: Path) -> BaseModel:
    return BaseModel(**json.loads(path.read_bytes()))


def _run(command: list[str], stop: threading.Event) -> int:
    """A child's exit code; the child ends when `stop` is set."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as child:
        while child.poll() is None:
            if stop.wait(0.2):
                child.terminate()
        return child.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description="Imports base models into the object store.")
    parser.add_argument("verb", choices=["import"])
    parser.add_argument("names", nargs="+", choices=IMPORTABLE)
    # As the service's own settings, so that a command beside it finds the service's folder and store.
    state_dir = os.environ.get("OPENLEDGER_STATE_DIR", ".openledger")
    parser.add_argument("--state-dir", type=Path, default=Path(state_dir), help=f"default: {state_dir}")
    object_store = os.environ.get("OPENLEDGER_OBJECT_STORE", "")
    parser.add_argument(
        "--object-store", default=object_store, help=f"default: {object_store or '<state dir>/objects'}"
    )
    arguments = parser.parse_args()
    for name in arguments.names:
        store = arguments.object_store or str(arguments.state_dir / "objects")
        model = import_base_model(name, arguments.state_dir, store)
        print(f"{model.id}  {model.digest}  {model.parameter_count:,} parameters")


if __name__ == "__main__":
    main()
