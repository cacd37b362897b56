"""The registry of base models, a file for each, and the job that imports one.

Importing needs torch, so `finetune.import_base_model` does it: as a job at Ray, or as a command that registers the model
itself on a machine where both programs share a state folder. Either may be repeated, or run twice at once: the objects
and the file come out the same.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from servicekit.files import write_whole
from trainer.contract.files import JOB_FILE, RESULT_FILE
from trainer.contract.spec import ALL_LINEAR

IMPORTABLE = ("smollm2-135m-instruct", "tiny")


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """A registered base model."""

    id: str
    """Of `baseModels/{id}`."""
    digest: str
    display_name: str
    licence: str
    parameter_count: int
    source: str
    linear_modules: tuple[str, ...] = ALL_LINEAR
    """Names of the linear layers that adapters can be put on, in the order of a block's forward pass. Files that were written
    before other bases than Llamas could be imported lack it."""


@dataclass(frozen=True, kw_only=True)
class ImportJob:
    """What an import is asked to do; its `result.json` holds a BaseModel."""

    id: str
    object_store: str
    """Absolute folder or URL."""
    cache_dir: str

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises FileNotFoundError."""
        return cls(**json.loads((folder / JOB_FILE).read_bytes()))


def result(folder: Path) -> BaseModel | None:
    """Returns what an import job made; None while there is no result."""
    path = folder / RESULT_FILE
    return read(path) if path.is_file() else None


def registry_folder(state_dir: Path) -> Path:
    """Returns where the files of registered models are."""
    return state_dir / "trainer" / "base_models"


def registered_path(state_dir: Path, id_: str) -> Path:
    """Returns the file that registers a model."""
    return registry_folder(state_dir) / f"{id_}.json"


def read(path: Path) -> BaseModel:
    """Reads a registered model. Raises FileNotFoundError."""
    content = json.loads(path.read_bytes())
    return BaseModel(**{**content, "linear_modules": tuple(content.get("linear_modules", ALL_LINEAR))})


def register(model: BaseModel, state_dir: Path) -> None:
    """Writes a model's file, whole or not at all."""
    write_whole(registered_path(state_dir, model.id), json.dumps(asdict(model), indent=1))
