"""The tensors of LoRA adapters: checked, published and fetched."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from identity.digest import canonical_json
from modelkit.adapter import (
    CONFIG_FILE,
    KIND,
    MAX_BYTES,
    WEIGHTS_FILE,
    AdapterConfig,
    InvalidAdapter,
    config_json,
    manifest,
    own_config,
    peft_config,
    read_json,
)
from modelkit.base_model import link_files, tensor_shapes
from servicekit import crash
from servicekit.objects import ObjectStore

_TENSOR_NAME = re.compile(
    r"base_model\.model\.(?P<module>(?:\w+\.)+\d+\.(?:\w+\.)*(?P<target>[A-Za-z]\w*))\.lora_(?P<side>[AB])\.weight"
)
"""A numbered segment is a decoder layer: embeddings and the head have none. That the base has such a layer, `_check_fit` says."""
_LONGEST_NAME = 512


@dataclass(frozen=True)
class Adapter:
    """A checked adapter in memory. `weights[module]` is (A [rank, in], B [out, rank]), module names as in
    the base model ("model.layers.0.self_attn.q_proj")."""

    config: AdapterConfig
    weights: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def publish(folder: Path, base_digest: str, store: ObjectStore) -> str:
    """Checks and stores what PEFT's `save_pretrained` wrote; returns the adapter digest.

    Both files are written again, the configuration in this platform's schema and weights without their header's notes: the
    digest depends on what the adapter is, not on paths, library versions or who saved it.

    Raises InvalidAdapter, also when a weight does not fit its layer of the base model; NotFound without the base model.
    """
    config = peft_config(read_json(folder / CONFIG_FILE))
    _check_fit(_weights(folder / WEIGHTS_FILE, config), base_digest, store)
    files = {
        CONFIG_FILE: store.put_bytes(canonical_json(config_json(config, base_digest))),
        WEIGHTS_FILE: store.put_bytes(save(load_file(folder / WEIGHTS_FILE))),
    }
    return store.put_bytes(canonical_json({"kind": KIND, "base": base_digest, "files": files}))


def fetch(digest: str, store: ObjectStore, cache_dir: Path, base_digest: str) -> Path:
    """Returns a folder with both files, checked; PEFT and `read` load it. Raises NotFound or InvalidAdapter."""
    base, files = manifest(digest, store)
    if base != base_digest:
        raise InvalidAdapter(f"adapter {digest} was trained for base {base}, not {base_digest}")
    folder = link_files(digest, files, store, cache_dir)
    try:
        if read_json(folder / CONFIG_FILE).get("base_model_name_or_path") != base:
            raise InvalidAdapter(f"{CONFIG_FILE} and the manifest name different base models")
        read(folder)
    except InvalidAdapter:
        with crash.step("remove folder"):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def read(folder: Path) -> Adapter:
    """Configuration and weights of a fetched folder, in the stored dtype. Raises InvalidAdapter."""
    config = own_config(read_json(folder / CONFIG_FILE))
    return Adapter(config, _weights(folder / WEIGHTS_FILE, config))


def _check_fit(
    weights: Mapping[str, tuple[torch.Tensor, torch.Tensor]], base_digest: str, store: ObjectStore
) -> None:
    """Refuses weights that the base model cannot take: otherwise the first server to load the adapter would find out."""
    shapes = tensor_shapes(base_digest, store)
    for module, (a, b) in weights.items():
        layer = shapes.get(f"{module}.weight")
        if layer is None:
            raise InvalidAdapter(f"{WEIGHTS_FILE}: base model {base_digest} has no layer {module!r}")
        if (b.shape[0], a.shape[1]) != layer:
            raise InvalidAdapter(
                f"{WEIGHTS_FILE}: {module!r} maps {a.shape[1]} inputs to {b.shape[0]} outputs; the layer of base model"
                f" {base_digest} maps {layer[-1]} to {layer[0]}"
            )


def _weights(path: Path, config: AdapterConfig) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise InvalidAdapter(f"{WEIGHTS_FILE} is missing or larger than {MAX_BYTES} bytes")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise InvalidAdapter(f"{WEIGHTS_FILE} is not safetensors: {error}") from error
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        match = _TENSOR_NAME.fullmatch(name) if len(name) <= _LONGEST_NAME else None
        if match is None or match["target"] not in config.target_modules:
            raise InvalidAdapter(f"{WEIGHTS_FILE}: {name!r} is not a LoRA weight of a target module")
        rank = tensor.shape[0 if match["side"] == "A" else -1] if tensor.dim() == 2 else None
        if rank != config.rank or tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise InvalidAdapter(
                f"{WEIGHTS_FILE}: {name!r} has shape {tuple(tensor.shape)} and type {tensor.dtype}; "
                f"rank {config.rank} and a float type were announced"
            )
        if not torch.isfinite(tensor).all():
            raise InvalidAdapter(f"{WEIGHTS_FILE}: {name!r} holds a number that is not finite")
        sides.setdefault(match["module"], {})[match["side"]] = tensor
    if not sides or any(set(pair) != {"A", "B"} for pair in sides.values()):
        raise InvalidAdapter(f"{WEIGHTS_FILE}: every target needs lora_A and lora_B")
    return {module: (pair["A"], pair["B"]) for module, pair in sorted(sides.items())}
