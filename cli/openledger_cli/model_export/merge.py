"""The adapter inside the base's weights, and a measurement of how far that changes what the model answers.

The reference is PEFT: the base with the adapter beside it, as it was trained, measured and served here. Merged weights are
rounded to the number type that they are stored in, so a merged model is another model, slightly. How slightly is measured on
fixed prompts and compared with a tolerance; a merged model beyond it is never written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openledger_client.errors import ConfigurationError, DataLoss, FailedPrecondition

if TYPE_CHECKING:
    import torch

WEIGHTS, CONFIG = "model.safetensors", "config.json"
ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
TOLERANCES = {"float32": 0.01, "bfloat16": 0.1, "float16": 0.1}
"""Largest accepted share of the adapter's effect that merging may change, by the number type of the stored weights."""
_NEGLIGIBLE = 1e-5
"""A difference below this part of the logits' own spread is arithmetic noise, whatever the adapter's effect is."""
PROMPTS = (
    "The capital of France is",
    "Water boils at a temperature of",
    "Once upon a time there was a small village where everyone",
    "def add(a, b):\n    return",
    "1, 2, 3, 5, 8, 13,",
    "Report: The attachment ran a script that downloaded a second file.\nTactic:",
    "Dear Sir or Madam, I am writing to ask about my claim of 3 May, which",
    '{"name": "Ada", "year": 1815, "city":',
)
"""What parity is measured on, in this order."""
_MAX_TOKENS = 64
"""Of a prompt, and never more than the model's context."""
_NEEDED = ("torch", "transformers", "peft", "safetensors")


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far a merged model is from base and adapter, over all positions of `PROMPTS`; computed in float32."""

    number_type: str
    """Of the stored weights."""
    tolerance: float
    """Largest accepted `changed`."""
    positions: int
    changed: float
    """How far the merged logits are from those of base and adapter, over how far the latter are from those of the base alone
    (root mean squares): at 0.02, merging changed 2% of what the adapter does."""
    largest_difference: float
    """Of any logit at any position."""
    mean_kl: float
    """KL(base with adapter || merged), nats a position."""
    same_first_token: int
    """Positions at which the most probable token is the same."""

    @property
    def within(self) -> bool:
        """Whether the merged model may stand for base and adapter; a difference that is not a number never is."""
        return self.changed <= self.tolerance


def check_installed() -> None:
    """Raises ConfigurationError where the packages are missing that merging needs."""
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ConfigurationError(
            f"merging needs {', '.join(missing)}: pip install './cli[merge]' in OpenLedger's repository."
            " --as peft needs none of it",
            reason="MERGE_NOT_INSTALLED",
        )


def merge(base: Path, adapter: Path, into: Path, *, float32: bool) -> str:
    """Writes `model.safetensors` and `config.json` of the merged model into a folder, and returns the weights' number type.

    Each adapted weight becomes W + alpha / rank * B A, computed in float32. The other weights keep their bytes, unless `float32`
    asks for wider ones. Raises DataLoss for an adapter that does not fit the base.
    """
    import torch  # here and below: takes seconds, and only merging needs it
    from safetensors.torch import load_file, save_file

    tensors, factors = load_file(base / WEIGHTS), load_file(adapter / ADAPTER_WEIGHTS)
    lora = json.loads((adapter / ADAPTER_CONFIG).read_bytes())
    config = json.loads((base / CONFIG).read_bytes())
    for name, a in factors.items():
        module, is_a, _ = name.removeprefix("base_model.model.").partition(".lora_A.weight")
        if is_a:
            b = factors.get(name.replace(".lora_A.", ".lora_B."))
            weight = tensors.get(f"{module}.weight")
            if weight is None or b is None or weight.shape != (b.shape[0], a.shape[1]):
                raise DataLoss(f"the adapter does not fit the base at {module!r}", reason="UNFIT_OBJECT")
            delta = (b.float() @ a.float()) * (lora["lora_alpha"] / lora["r"])
            tensors[f"{module}.weight"] = (weight.float() + delta).to(
                torch.float32 if float32 else weight.dtype
            )
    if float32:
        tensors = {name: _widened(tensor) for name, tensor in tensors.items()}
        config.pop("torch_dtype", None)  # its name before transformers 5
        config["dtype"] = "float32"
    save_file(tensors, into / WEIGHTS, metadata={"format": "pt"})
    (into / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    return _number_type(tensors)


def measure(
    base: Path, adapter: Path, merged: Path, number_type: str, report: Callable[[int], None]
) -> Parity:
    """Returns the parity of a merged model, from the written files. `report` takes how many prompts are measured, of both models.

    Raises FailedPrecondition for weights of a number type without a tolerance.
    """
    if number_type not in TOLERANCES:
        raise FailedPrecondition(
            f"weights are stored as {number_type}; merged models are checked for {', '.join(TOLERANCES)}. --float32 stores those",
            reason="NUMBER_TYPE_WITHOUT_TOLERANCE",
        )
    import torch

    tuned, untuned = _logits(base, adapter, report)
    merged_logits, _ = _logits(merged, None, lambda done: report(len(PROMPTS) + done))
    a, b = torch.log_softmax(tuned, -1), torch.log_softmax(merged_logits, -1)
    difference, effect, spread = _rms(merged_logits - tuned), _rms(tuned - untuned), float(tuned.std())
    return Parity(
        number_type=number_type,
        tolerance=TOLERANCES[number_type],
        positions=len(tuned),
        changed=0.0 if difference < _NEGLIGIBLE * spread else difference / effect if effect else float("inf"),
        largest_difference=float((merged_logits - tuned).abs().max()),
        mean_kl=max(float((a.exp() * (a - b)).sum(-1).mean()), 0.0),
        same_first_token=int((tuned.argmax(-1) == merged_logits.argmax(-1)).sum()),
    )


def check(parity: Parity) -> None:
    """Raises FailedPrecondition for a merged model beyond the tolerance."""
    if not parity.within:
        wider = (
            ""
            if parity.number_type == "float32"
            else "; --float32 stores the merged weights without rounding"
        )
        raise FailedPrecondition(
            f"merging changes {parity.changed:.3g} of the adapter's effect, more than {parity.tolerance:g}: nothing was"
            f" written{wider}, --as peft changes nothing",
            reason="MERGED_MODEL_DIFFERS",
            metadata={"changed": str(parity.changed), "tolerance": str(parity.tolerance)},
        )


def _logits(
    folder: Path, adapter: Path | None, report: Callable[[int], None]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the logits `[positions, vocabulary]` of all prompts in float32, computed on the CPU: of the model with the adapter,
    and without it. They are one tensor where there is no adapter."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trusted: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(str(folder), **trusted)
    model: Any = AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=torch.float32, use_safetensors=True, **trusted
    )
    longest = min(_MAX_TOKENS, getattr(model.config, "max_position_embeddings", None) or _MAX_TOKENS)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    model.train(False)
    found, without = [], []
    for number, prompt in enumerate(PROMPTS, start=1):
        ids = torch.tensor([tokenizer(prompt)["input_ids"][:longest]])
        with torch.inference_mode():
            found.append(model(input_ids=ids).logits[0].float())
            if adapter is not None:
                with model.disable_adapter():
                    without.append(model(input_ids=ids).logits[0].float())
        report(number)
    both = torch.cat(found)
    return both, torch.cat(without) if without else both


def _rms(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt())


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _number_type(tensors: Mapping[str, torch.Tensor]) -> str:
    """Returns the narrowest type of the weights: it decides how much rounding may cost."""
    found = {
        str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values() if tensor.is_floating_point()
    }
    return next(
        (name for name in ("bfloat16", "float16", "float32") if name in found), ", ".join(sorted(found))
    )
