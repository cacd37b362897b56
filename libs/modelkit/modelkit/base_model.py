"""Base models by digest: what one is, how it is unpacked, and how it is loaded.

A base model is a manifest object in the object store:

    {"kind": "base-model", "name": .., "licence": .., "source": .., "files": {file name: digest}}

The digest of its canonical JSON names the model everywhere: two machines that hold the same digest hold the
same weights, tokenizer and configuration.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from identity.digest import canonical_json
from modelkit.compute import Compute
from servicekit import crash
from servicekit.objects import ObjectStore

KIND = "base-model"
REQUIRED_FILES = frozenset({"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"})
ALLOWED_FILES = REQUIRED_FILES | {"generation_config.json", "chat_template.jinja", "special_tokens_map.json"}
"""No Python, no pickles: loading a base model never runs code that came with it."""


class InvalidBaseModel(ValueError):
    """An object that is not the manifest of a base model this platform would load."""


@dataclass(frozen=True)
class BaseModel:
    """The manifest. `licence` is an SPDX identifier; `source` says where the weights came from, in words."""

    name: str
    licence: str
    source: str
    files: Mapping[str, str]

    def to_json(self) -> dict[str, object]:
        return {"kind": KIND, **asdict(self)}


def publish(folder: Path, name: str, licence: str, source: str, store: ObjectStore) -> str:
    """Stores a folder's model files and their manifest; returns the base digest. Other files are left out."""
    names = sorted(path.name for path in folder.iterdir() if path.name in ALLOWED_FILES)
    manifest = BaseModel(name, licence, source, {file: store.put_file(folder / file) for file in names})
    _check(manifest)
    return store.put_bytes(canonical_json(manifest.to_json()))


def read_manifest(digest: str, store: ObjectStore) -> BaseModel:
    """Raises NotFound when the store lacks it, InvalidBaseModel when it is something else."""
    try:
        content: Any = json.loads(store.get_bytes(digest))
    except ValueError as error:
        raise InvalidBaseModel(f"{digest} is not JSON, so no base model") from error
    if (
        not isinstance(content, dict)
        or content.get("kind") != KIND
        or not isinstance(content.get("files"), dict)
    ):
        raise InvalidBaseModel(f"{digest} is not a base model's manifest")
    manifest = BaseModel(
        str(content.get("name", "")),
        str(content.get("licence", "")),
        str(content.get("source", "")),
        {str(k): str(v) for k, v in content["files"].items()},
    )
    _check(manifest)
    return manifest


def materialise(digest: str, store: ObjectStore, cache_dir: Path) -> Path:
    """A folder with the model's files, made once for each digest below `cache_dir`; each file was verified.

    The folder appears by one rename, so a process that dies halfway leaves nothing that looks complete, and
    two processes that arrive together both end with the same folder.
    """
    return link_files(digest, read_manifest(digest, store).files, store, cache_dir)


def link_files(digest: str, files: Mapping[str, str], store: ObjectStore, cache_dir: Path) -> Path:
    """Unpacks named objects into `cache_dir/<hex of digest>`; hard links where the file system allows."""
    folder = cache_dir / digest.removeprefix("sha256:")
    if folder.is_dir():
        return folder
    cache_dir.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=cache_dir))
    try:
        for name, file_digest in files.items():
            source = store.local_path(file_digest)
            try:
                os.link(source, building / name)
            except OSError:  # another file system
                shutil.copyfile(source, building / name)
        try:
            with crash.step("folder"):
                building.rename(folder)
        except OSError:
            if not folder.is_dir():  # someone else's finished folder is as good as ours
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def parameter_count(digest: str, store: ObjectStore) -> int:
    """Weights of the model, read from its file's header; tied weights count once."""
    path = store.local_path(read_manifest(digest, store).files["model.safetensors"])
    with safe_open(path, "pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a materialised base model; takes a third of a second and needs no weights."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        str(path.absolute()), local_files_only=True, trust_remote_code=False
    )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load(path: Path, compute: Compute) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model in evaluation mode with frozen weights in `compute`'s dtype and device, and its tokenizer."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        str(path.absolute()),
        dtype=compute.torch_dtype,
        attn_implementation="sdpa",
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    model.requires_grad_(False)
    model.train(False)
    head = getattr(model, "lm_head", None)
    if isinstance(head, torch.nn.Linear):
        head.register_forward_pre_hook(_contiguous)
    return model.to(compute.device), load_tokenizer(path)  # type: ignore[arg-type]


def _contiguous(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """bf16 prefill is 2.5 times slower when lm_head multiplies a strided slice of the hidden states."""
    return (inputs[0].contiguous(), *inputs[1:])


def _check(manifest: BaseModel) -> None:
    if missing := REQUIRED_FILES - set(manifest.files):
        raise InvalidBaseModel(f"base model {manifest.name!r} lacks {', '.join(sorted(missing))}")
    if foreign := set(manifest.files) - ALLOWED_FILES:
        raise InvalidBaseModel(
            f"base model {manifest.name!r} holds {', '.join(sorted(foreign))}, which is not allowed"
        )
