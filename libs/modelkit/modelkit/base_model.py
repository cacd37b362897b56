"""Base models by digest: what one is and how it is unpacked. `modelkit.weights.loading` loads one.

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
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from identity.digest import canonical_json
from servicekit import crash, private
from servicekit.objects import ObjectStore

KIND = "base-model"
REQUIRED_FILES = frozenset({"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"})
ALLOWED_FILES = REQUIRED_FILES | {"generation_config.json", "chat_template.jinja", "special_tokens_map.json"}
"""No Python files and no pickles: loading a base model never runs code from its files."""

_MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library itself."""


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
    manifest = BaseModel(
        name=name,
        licence=licence,
        source=source,
        files={file: store.put_file(folder / file) for file in names},
    )
    _check(manifest)
    return store.put_bytes(canonical_json(manifest.to_json()))


def read_manifest(digest: str, store: ObjectStore) -> BaseModel:
    """Returns the manifest. Raises NotFound when the store lacks it, and InvalidBaseModel for another kind of object."""
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
        name=str(content.get("name", "")),
        licence=str(content.get("licence", "")),
        source=str(content.get("source", "")),
        files={str(k): str(v) for k, v in content["files"].items()},
    )
    _check(manifest)
    return manifest


def materialise(digest: str, store: ObjectStore, cache_dir: Path) -> Path:
    """Returns a folder with the model's verified files, created once for each digest below `cache_dir`.

    The folder appears by one rename, so a process that dies halfway leaves nothing that looks complete, and
    two processes that arrive together both end with the same folder.
    """
    return link_files(digest, read_manifest(digest, store).files, store, cache_dir)


def link_files(digest: str, files: Mapping[str, str], store: ObjectStore, cache_dir: Path) -> Path:
    """Unpacks named objects into `cache_dir/<hex of digest>`; hard links where the file system allows."""
    folder = cache_dir / digest.removeprefix("sha256:")
    if folder.is_dir():
        return folder
    private.folder(cache_dir)
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
            if not folder.is_dir():  # another process finished the same folder first
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def parameter_count(digest: str, store: ObjectStore) -> int:
    """Returns how many weights the model has, from its file's header; tied weights count once."""
    return sum(math.prod(shape) for shape in tensor_shapes(digest, store).values())


def context_length(digest: str, store: ObjectStore) -> int | None:
    """Returns the most tokens that the model reads at once; None when its configuration does not say.

    Raises NotFound or InvalidBaseModel.
    """
    try:
        config: Any = json.loads(store.get_bytes(read_manifest(digest, store).files["config.json"]))
    except ValueError as error:
        raise InvalidBaseModel(f"base model {digest}: config.json is not JSON") from error
    length = config.get("max_position_embeddings") if isinstance(config, dict) else None
    return length if isinstance(length, int) and length > 0 else None


def tensor_shapes(digest: str, store: ObjectStore) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each weight by name, from the file's header. Raises NotFound or InvalidBaseModel."""
    path = store.local_path(read_manifest(digest, store).files["model.safetensors"])
    with path.open("rb") as file:
        try:
            (length,) = struct.unpack(
                "<Q", file.read(8)
            )  # a safetensors file begins with its header's length
            if length > _MAX_HEADER_BYTES:
                raise InvalidBaseModel(
                    f"base model {digest}: model.safetensors has a header of {length} bytes; "
                    f"at most {_MAX_HEADER_BYTES} are read"
                )
            header: dict[str, Any] = json.loads(file.read(length))
            return {
                name: tuple(map(int, tensor["shape"]))
                for name, tensor in header.items()
                if name != "__metadata__"
            }
        except (
            struct.error,
            UnicodeDecodeError,
            json.JSONDecodeError,
            KeyError,
            TypeError,
            AttributeError,
        ) as error:
            raise InvalidBaseModel(
                f"base model {digest}: model.safetensors has no readable header"
            ) from error


def _check(manifest: BaseModel) -> None:
    if missing := REQUIRED_FILES - set(manifest.files):
        raise InvalidBaseModel(f"base model {manifest.name!r} lacks {', '.join(sorted(missing))}")
    if foreign := set(manifest.files) - ALLOWED_FILES:
        raise InvalidBaseModel(
            f"base model {manifest.name!r} holds {', '.join(sorted(foreign))}, which is not allowed"
        )
