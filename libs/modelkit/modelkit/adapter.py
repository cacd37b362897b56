"""LoRA adapters by digest: manifest, configuration, and what is refused. `modelkit.weights.adapter` reads the tensors.

An adapter is a manifest object {"kind": "adapter", "base": base digest, "files": {file name: digest}} with
two files: `adapter_config.json` in our own schema, which PEFT reads too, and `adapter_model.safetensors`.
Adapters may come from anywhere, so everything is checked before a weight reaches a model: known keys only,
plain LoRA (no bias, no saved modules, no initialisation that alters the base), matching shapes, finite
numbers, and the digest of the base it was trained for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servicekit.objects import ObjectStore

KIND = "adapter"
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every linear layer of a Llama-shaped block, in the order of its forward pass."""
_TARGET = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_MAX_TARGETS = 64
MAX_RANK = 256
MAX_ALPHA = 16 * MAX_RANK
MAX_BYTES = 1 << 30
MAX_CONFIG_BYTES = 1 << 16


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


def base_of(digest: str, store: ObjectStore) -> str:
    """Returns the digest of the base model that an adapter was trained for."""
    return manifest(digest, store)[0]


def manifest(digest: str, store: ObjectStore) -> tuple[str, dict[str, str]]:
    """Returns an adapter's base digest and its files' digests by name. Raises NotFound or InvalidAdapter."""
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


def config_json(config: AdapterConfig, base_digest: str) -> dict[str, object]:
    """Returns the content of `adapter_config.json` in this platform's schema."""
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


def own_config(content: Mapping[str, Any]) -> AdapterConfig:
    """Reads a published configuration: exactly this platform's keys. Raises InvalidAdapter."""
    expected = set(config_json(AdapterConfig(1, 1, ()), ""))
    if set(content) != expected:
        odd = sorted(set(content) ^ expected)
        raise InvalidAdapter(f"{CONFIG_FILE}: unknown or missing keys {odd}")
    return peft_config(content)


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


def peft_config(content: Mapping[str, Any]) -> AdapterConfig:
    """Reads a configuration that PEFT wrote. Raises InvalidAdapter for anything but plain LoRA."""
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
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha <= MAX_ALPHA:
        raise InvalidAdapter(f"{CONFIG_FILE}: lora_alpha is {alpha!r}; it must be a positive number")
    if (
        not isinstance(targets, list)
        or not 1 <= len(targets) <= _MAX_TARGETS
        or not all(isinstance(name, str) and _TARGET.fullmatch(name) for name in targets)
    ):
        raise InvalidAdapter(
            f"{CONFIG_FILE}: target_modules is {targets!r}; it must be a list of names of linear layers, like"
            f" {list(ALL_LINEAR)}"
        )
    return AdapterConfig(rank, alpha, tuple(sorted(set(targets), key=_forward_order)))


def _forward_order(name: str) -> tuple[int, str]:
    """Llama's layers in the order of the forward pass; those of other architectures by name."""
    return (ALL_LINEAR.index(name) if name in ALL_LINEAR else len(ALL_LINEAR), name)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a small JSON object. Raises InvalidAdapter that names the file."""
    if not path.is_file() or path.stat().st_size > MAX_CONFIG_BYTES:
        raise InvalidAdapter(f"{path.name} is missing or larger than {MAX_CONFIG_BYTES} bytes")
    try:
        content: Any = json.loads(path.read_bytes())
    except ValueError as error:
        raise InvalidAdapter(f"{path.name} is not JSON") from error
    if not isinstance(content, dict):
        raise InvalidAdapter(f"{path.name} is not a JSON object")
    return content
