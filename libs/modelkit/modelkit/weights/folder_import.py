"""Imports a base model from a folder: loads it, tries everything that the platform will do with it, and publishes it.

Tried are what training, evaluation, serving and attribution rest on: logits are the head's output of the body's last states; LoRA
fits on linear layers inside numbered blocks; the fast tokenizer keeps text and control tokens apart, ends its answers, and has
no id beyond the embeddings. A base that fails one of these is refused by name now, not in the middle of a run.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from modelkit.adapter import ALL_LINEAR
from modelkit.base_folder import SINGLE, BaseFolder, RefusedFolder, look_at
from modelkit.base_model import publish
from modelkit.plain_text import ControlTokensFromText, token_ids
from servicekit import private
from servicekit.objects import ObjectStore

_TYPES = (torch.float32, torch.bfloat16, torch.float16)
_SAMPLE = "The quick brown fox, 42 times: naïve façade 語."
_SAMPLE_TOKENS = 16
_LONGEST_REASON = 300
_SHOWN = 3
"""Tensors that a message names."""


@dataclass(frozen=True, kw_only=True)
class ImportedBase:
    """A published base model."""

    digest: str
    architecture: str
    """The class that loads it, e.g. "LlamaForCausalLM"."""
    parameter_count: int
    linear_modules: tuple[str, ...]
    """Names of the linear layers that adapters can be put on, in the order of a block's modules."""


def import_folder(
    folder: Path, *, name: str, licence: str, source: str, store: ObjectStore, scratch: Path
) -> ImportedBase:
    """Checks a folder and publishes it. Needs memory for the weights twice, and below `scratch` disk for them once.

    The same folder gives the same digest, in however many shards its weights are.

    Args:
        name: the id that the platform gives the model.
        licence: an SPDX licence expression.
        source: where the weights came from, in words.
        scratch: a folder for temporary files.

    Raises:
        RefusedFolder: names what is wrong, and what would be right.
    """
    found = look_at(folder)
    _check_architecture(found)
    private.folder(scratch)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=scratch) as temporary:
        copy = Path(temporary)  # what was checked is what is published, even if the folder changes meanwhile
        for path in found.side_files:
            shutil.copyfile(path, copy / path.name)
        tensors = _tensors(found.weights)
        save_file(tensors, copy / SINGLE, metadata={"format": "pt"})
        tokenizer = _tokenizer(copy)
        model = _model(copy)
        _check_tokenizer(tokenizer, model)
        _check_head(model)
        return ImportedBase(
            digest=publish(copy, name, licence, source, store),
            architecture=type(model).__name__,
            parameter_count=model.num_parameters(),
            linear_modules=_linear_modules(model, tensors),
        )


def _check_architecture(found: BaseFolder) -> None:
    kind = found.config["model_type"]
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise RefusedFolder(
            f"config.json: model_type {kind!r} is no causal language model of transformers; among them are llama, qwen3, gpt_neox"
        )


def _tensors(weights: Sequence[Path]) -> dict[str, Tensor]:
    """All tensors, by name in order; the library checks that each lies in its file."""
    tensors: dict[str, Tensor] = {}
    for path in weights:
        try:
            part = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise RefusedFolder(f"{path.name} is not safetensors: {_line(error)}") from None
        for name, tensor in part.items():
            if name in tensors:
                raise RefusedFolder(f"{path.name}: {name!r} is in another shard, too; save the model again")
            if tensor.dtype not in _TYPES:
                raise RefusedFolder(
                    f"{path.name}: {name!r} is {_type(tensor)}; weights are float32, bfloat16 or float16: save them dequantised"
                )
            if not torch.isfinite(tensor).all():
                raise RefusedFolder(f"{path.name}: {name!r} holds a number that is not finite")
            tensors[name] = tensor
    return dict(sorted(tensors.items()))


def _model(folder: Path) -> Any:
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            str(folder.absolute()),
            dtype=torch.float32,
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except Exception as error:  # transformers raises any type for a configuration that it cannot build
        raise RefusedFolder(f"config.json: transformers cannot build the model: {_line(error)}") from error
    for kind, names in (
        ("do not fit config.json", [each[0] for each in loading["mismatched_keys"]]),
        ("are missing", loading["missing_keys"]),
        ("belong to no layer", loading["unexpected_keys"]),
    ):
        if names:
            shown = ", ".join(sorted(map(str, names))[:_SHOWN])
            raise RefusedFolder(
                f"{SINGLE}: {len(names)} tensors {kind}, {shown} for example; config.json and weights must be of one model"
            )
    model.train(False)
    return model.requires_grad_(False)


def _tokenizer(folder: Path) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder.absolute()), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # as for models
        raise RefusedFolder(f"tokenizer.json: transformers cannot load it: {_line(error)}") from error
    if not getattr(tokenizer, "is_fast", False):
        raise RefusedFolder(
            "tokenizer_config.json names no fast tokenizer; save one by tokenizer.save_pretrained"
        )
    if tokenizer.eos_token_id is None:
        raise RefusedFolder("tokenizer_config.json: eos_token is missing; without it an answer never ends")
    return tokenizer


def _check_tokenizer(tokenizer: Any, model: Any) -> None:
    try:
        ids = token_ids(tokenizer, _SAMPLE)
    except ControlTokensFromText as error:
        raise RefusedFolder(f"tokenizer.json: {error}; such a base cannot be used safely") from None
    rows = model.get_input_embeddings().weight.shape[0]
    largest = max([*ids, *tokenizer.get_vocab().values()])
    if not ids or largest >= rows:
        raise RefusedFolder(
            f"tokenizer.json has ids up to {largest}, the model embeddings for ids below {rows}: they are of different models"
        )


@torch.inference_mode()
def _check_head(model: Any) -> None:
    """Training and evaluation compute logits at chosen positions only, from the body's last states."""
    head, body = model.get_output_embeddings(), model.base_model
    positions = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(positions, int):
        raise RefusedFolder(
            "config.json: max_position_embeddings is missing; the context's length must be known"
        )
    if not isinstance(head, nn.Linear) or body is model:
        raise RefusedFolder(
            f"{type(model).__name__} has no body with a linear head; such models are not supported"
        )
    tokens = (
        torch.arange(min(_SAMPLE_TOKENS, positions)).unsqueeze(0)
        % model.get_input_embeddings().weight.shape[0]
    )
    try:
        expected = model(input_ids=tokens, use_cache=False).logits
        found = head(body(input_ids=tokens, use_cache=False).last_hidden_state)
    except Exception as error:  # any type, as above
        raise RefusedFolder(f"{type(model).__name__} cannot run: {_line(error)}") from error
    if not torch.allclose(expected, found, rtol=1e-3, atol=1e-3 * float(expected.std())):
        raise RefusedFolder(
            f"{type(model).__name__} changes its logits after the head (scaling, soft-capping); such models are not supported"
        )


def _linear_modules(model: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of plain linear layers inside numbered blocks; Llama's in the order of the forward pass.

    Adapters are compared with the weights' file without loading it, so the file must name weights as the model does.
    """
    found: dict[str, None] = {}
    for path, module in model.named_modules():
        if type(module) is nn.Linear and any(segment.isdigit() for segment in path.split(".")[:-1]):
            found[path.rpartition(".")[2]] = None
            if f"{path}.weight" not in tensors:
                raise RefusedFolder(
                    f"{SINGLE} lacks '{path}.weight', which the loaded model has: load the model by AutoModelForCausalLM and"
                    " save it by save_pretrained; architectures whose weights transformers renames are not supported"
                )
    if not found:
        raise RefusedFolder(
            f"{type(model).__name__} has no plain linear layers in its blocks, so no adapter fits on it"
        )
    return ALL_LINEAR if set(found) == set(ALL_LINEAR) else tuple(found)


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST_REASON]
