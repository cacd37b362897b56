"""A folder in Hugging Face's layout, looked at before anything in it is loaded: which files it has, and what is refused by name.

A stranger's folder is data. Nothing in it is executed, no file outside it is read, and what only looks like a model is refused
with what would be right. `modelkit.weights.folder_import` loads what passed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelkit.base_model import ALLOWED_FILES

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack")
_CODE = (".py", ".pyc", ".so", ".dll")
_MAX_JSON_BYTES = 64 << 20
"""Of a tokenizer with a quarter of a million entries: 34 MB."""
_SIDE_FILES = frozenset(ALLOWED_FILES) - {SINGLE}


class RefusedFolder(ValueError):
    """A folder that is not imported. The message names the file, the rule and what would be right."""


@dataclass(frozen=True, kw_only=True)
class BaseFolder:
    """A folder whose files are the right ones. Their content is not checked yet, apart from the configurations'."""

    path: Path
    config: dict[str, Any]
    """`config.json`."""
    weights: tuple[Path, ...]
    """The safetensors file, or its shards in the order of their names."""
    side_files: tuple[Path, ...]
    """Configurations and the tokenizer."""


def look_at(folder: Path) -> BaseFolder:
    """Returns a folder's files. Reads configurations, and of no other file more than its name. Raises RefusedFolder."""
    if not folder.is_dir():
        raise RefusedFolder(
            f"{folder} is no folder; name one in Hugging Face's layout, as save_pretrained writes it"
        )
    files = {path.name: path for path in sorted(folder.iterdir()) if not path.name.startswith(".")}
    _check_links(folder)
    for name in files:
        if name.endswith(_PICKLES):
            raise RefusedFolder(
                f"{name} may run code when it is loaded; save the model as safetensors (save_pretrained does) and remove the file"
            )
        if name.endswith(_CODE):
            raise RefusedFolder(
                f"{name} is code; only architectures that transformers has are imported: remove the file"
            )
    if "config.json" not in files:
        raise RefusedFolder("config.json is missing; save the model by save_pretrained")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if name not in files:
            raise RefusedFolder(f"{name} is missing; save the fast tokenizer by tokenizer.save_pretrained")
    config = _json(files["config.json"])
    _check_config(config)
    _check_no_code("tokenizer_config.json", _json(files["tokenizer_config.json"]))
    side = tuple(path for name, path in files.items() if name in _SIDE_FILES)
    return BaseFolder(path=folder, config=config, weights=_weights(files), side_files=side)


def _check_links(folder: Path) -> None:
    inside = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise RefusedFolder(
                f"{path.relative_to(folder)} is a link out of the folder; copy the folder with its files: cp -rL"
            )


def _check_config(config: dict[str, Any]) -> None:
    _check_no_code("config.json", config)
    if not isinstance(config.get("model_type"), str):
        raise RefusedFolder("config.json: model_type is missing; save the model by save_pretrained")
    if config.get("quantization_config"):
        raise RefusedFolder(
            "config.json: quantization_config is set; adapters are trained on plain weights: save the model dequantised"
        )


def _check_no_code(name: str, content: dict[str, Any]) -> None:
    if content.get("auto_map"):
        raise RefusedFolder(
            f"{name}: auto_map names code of the folder, which is never run; only architectures of transformers are imported"
        )


def _weights(files: dict[str, Path]) -> tuple[Path, ...]:
    found = tuple(path for name, path in files.items() if name.endswith(".safetensors"))
    if not found or not all(path.is_file() for path in found):
        raise RefusedFolder("there is no .safetensors file; save the model by save_pretrained")
    if INDEX not in files:
        if found != (files.get(SINGLE),):
            odd = ", ".join(path.name for path in found)
            raise RefusedFolder(f"without {INDEX}, the weights must be in {SINGLE} alone; there are {odd}")
        return found
    named = _json(files[INDEX]).get("weight_map")
    if not isinstance(named, dict) or set(named.values()) != {path.name for path in found}:
        raise RefusedFolder(
            f"{INDEX} does not name the .safetensors files that are there; save the model again"
        )
    return found


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file() or path.stat().st_size > _MAX_JSON_BYTES:
        raise RefusedFolder(f"{path.name} is no file of at most {_MAX_JSON_BYTES} bytes")
    try:
        content: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise RefusedFolder(f"{path.name} is not JSON") from None
    if not isinstance(content, dict):
        raise RefusedFolder(f"{path.name} is no JSON object")
    return content
