"""LoRA adapters by digest, and what is refused.

An adapter is a manifest object {"kind": "adapter", "base": base digest, "files": {file name: digest}} with
two files: `adapter_config.json` in our own schema, which PEFT reads too, and `adapter_model.safetensors`.
Adapters may come from anywhere, so everything is checked before a weight reaches a model: known keys only,
plain LoRA (no bias, no saved modules, no initialisation that alters the base), matching shapes, finite
numbers, and the digest of the base it was trained for.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from identity.digest import canonical_json
from modelkit.base_model import link_files
from servicekit import crash
from servicekit.objects import ObjectStore

KIND = "adapter"
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every linear layer of a Llama-shaped block, in the order of its forward pass."""
MAX_RANK = 256
MAX_BYTES = 1 << 30
MAX_CONFIG_BYTES = 1 << 16

_TENSOR_NAME = re.compile(
    r"base_model\.model\.(?P<module>model\.layers\.\d+\.(?:self_attn|mlp)\.(?P<target>\w+))\.lora_(?P<side>[AB])\.weight"
)


class InvalidAdapter(ValueError):
    """An adapter that must not be loaded; the message names the file and the rule."""


@dataclass(frozen=True)
class AdapterConfig:
    """Plain LoRA: each target's output gains (alpha / rank) * B(A x)."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


@dataclass(frozen=True)
class Adapter:
    """A checked adapter in memory. `weights[module]` is (A [rank, in], B [out, rank]), module names as in
    the base model ("model.layers.0.self_attn.q_proj")."""

    config: AdapterConfig
    weights: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def publish(folder: Path, base_digest: str, store: ObjectStore) -> str:
    """Checks and stores what PEFT's `save_pretrained` wrote; returns the adapter digest.

    Both files are written anew, configuration in our schema and weights without their header's notes: the
    digest depends on what the adapter is, not on paths, library versions or who saved it. Raises
    InvalidAdapter.
    """
    config = _peft_config(_read_json(folder / CONFIG_FILE))
    _weights(folder / WEIGHTS_FILE, config)
    files = {
        CONFIG_FILE: store.put_bytes(canonical_json(_config_json(config, base_digest))),
        WEIGHTS_FILE: store.put_bytes(save(load_file(folder / WEIGHTS_FILE))),
    }
    return store.put_bytes(canonical_json({"kind": KIND, "base": base_digest, "files": files}))


def base_of(digest: str, store: ObjectStore) -> str:
    """The digest of the base model that an adapter was trained for."""
    return _manifest(digest, store)[0]


def fetch(digest: str, store: ObjectStore, cache_dir: Path, base_digest: str) -> Path:
    """A folder with both files, checked; PEFT and `read` load it. Raises NotFound or InvalidAdapter."""
    base, files = _manifest(digest, store)
    if base != base_digest:
        raise InvalidAdapter(f"adapter {digest} was trained for base {base}, not {base_digest}")
    folder = link_files(digest, files, store, cache_dir)
    try:
        if _read_json(folder / CONFIG_FILE).get("base_model_name_or_path") != base:
            raise InvalidAdapter(f"{CONFIG_FILE} and the manifest name different base models")
        read(folder)
    except InvalidAdapter:
        with crash.step("remove folder"):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def read(folder: Path) -> Adapter:
    """Configuration and weights of a fetched folder, in the stored dtype. Raises InvalidAdapter."""
    config = _own_config(_read_json(folder / CONFIG_FILE))
    return Adapter(config, _weights(folder / WEIGHTS_FILE, config))


def _manifest(digest: str, store: ObjectStore) -> tuple[str, dict[str, str]]:
    try:
        content: Any = json.loads(store.get_bytes(digest))
    except ValueError as error:
        raise InvalidAdapter(f"{digest} is not JSON, so no adapter") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise InvalidAdapter(f"{digest} is not an adapter's manifest")
    files = content.get("files")
    if not isinstance(files, dict) or set(files) != {CONFIG_FILE, WEIGHTS_FILE}:
        raise InvalidAdapter(f"adapter {digest} must hold exactly {CONFIG_FILE} and {WEIGHTS_FILE}")
    return str(content.get("base")), {str(name): str(file) for name, file in files.items()}


def _config_json(config: AdapterConfig, base_digest: str) -> dict[str, object]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": config.rank,
        "lora_alpha": config.alpha,
        "target_modules": sorted(config.target_modules),
        "bias": "none",
        "lora_dropout": 0.0,
        "inference_mode": True,
        "base_model_name_or_path": base_digest,
    }


def _own_config(content: Mapping[str, Any]) -> AdapterConfig:
    expected = set(_config_json(AdapterConfig(1, 1, ()), ""))
    if set(content) != expected:
        odd = sorted(set(content) ^ expected)
        raise InvalidAdapter(f"{CONFIG_FILE}: unknown or missing keys {odd}")
    return _peft_config(content)


_MUST_BE_UNSET = (
    "modules_to_save",
    "use_dora",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "layer_replication",
    "megatron_config",
    "auto_mapping",
    "fan_in_fan_out",
    "lora_bias",
    "trainable_token_indices",
    "target_parameters",
    "exclude_modules",
)


def _peft_config(content: Mapping[str, Any]) -> AdapterConfig:
    if content.get("peft_type") != "LORA":
        raise InvalidAdapter(
            f"{CONFIG_FILE}: peft_type is {content.get('peft_type')!r}; only LORA is accepted"
        )
    if content.get("bias", "none") != "none":
        raise InvalidAdapter(
            f'{CONFIG_FILE}: bias is {content["bias"]!r}; only "none" leaves the base unchanged'
        )
    if content.get("init_lora_weights", True) is not True:
        raise InvalidAdapter(
            f"{CONFIG_FILE}: init_lora_weights must be the plain one; others change the base"
        )
    for key in _MUST_BE_UNSET:
        if content.get(key):
            raise InvalidAdapter(f"{CONFIG_FILE}: {key} is not accepted")
    rank, alpha, targets = content.get("r"), content.get("lora_alpha"), content.get("target_modules")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= MAX_RANK:
        raise InvalidAdapter(f"{CONFIG_FILE}: r is {rank!r}; it must be an integer from 1 to {MAX_RANK}")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha <= 16 * MAX_RANK:
        raise InvalidAdapter(f"{CONFIG_FILE}: lora_alpha is {alpha!r}; it must be a positive number")
    if not isinstance(targets, list) or not targets or not set(map(str, targets)) <= set(ALL_LINEAR):
        raise InvalidAdapter(f"{CONFIG_FILE}: target_modules is {targets!r}; choose from {list(ALL_LINEAR)}")
    return AdapterConfig(rank, alpha, tuple(name for name in ALL_LINEAR if name in targets))


def _weights(path: Path, config: AdapterConfig) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise InvalidAdapter(f"{WEIGHTS_FILE} is missing or larger than {MAX_BYTES} bytes")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise InvalidAdapter(f"{WEIGHTS_FILE} is not safetensors: {error}") from error
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        match = _TENSOR_NAME.fullmatch(name)
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


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file() or path.stat().st_size > MAX_CONFIG_BYTES:
        raise InvalidAdapter(f"{path.name} is missing or larger than {MAX_CONFIG_BYTES} bytes")
    try:
        content: Any = json.loads(path.read_bytes())
    except ValueError as error:
        raise InvalidAdapter(f"{path.name} is not JSON") from error
    if not isinstance(content, dict):
        raise InvalidAdapter(f"{path.name} is not a JSON object")
    return content
