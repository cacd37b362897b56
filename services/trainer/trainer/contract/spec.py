"""What a training run does: every value, and who chose it.

People set what they care about and leave the rest out; `resolve` fills the rest in and remembers for each
value whether the user gave it, the platform suggested it for this data, or it is a fixed default. The
effective spec is what runs and what the training manifest records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from modelkit.adapter import MAX_ALPHA
from openledger_client.training_parameters import GUIDE, Parameter

Origin = Literal["default", "suggested", "user"]
Method = Literal["lora", "rslora"]
Schedule = Literal["linear", "cosine", "constant"]
Precision = Literal["auto", "fp32", "bf16"]
RehearsalKind = Literal["none", "self_generated"]

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every linear layer of a Llama-shaped block. What another base has, its import found out (`base_models.BaseModel`)."""


@dataclass(frozen=True, kw_only=True)
class RehearsalSpec:
    """Rehearsal: text sampled from the base model itself, on which the tuned model is held close to the base."""

    kind: RehearsalKind
    sequences: int
    """Sequences sampled before the first step; 0 without rehearsal, like all numbers here."""
    tokens_each: int
    """Length of each, the opener included."""
    sequences_per_step: int
    """How many of them every step sees."""
    kl_weight: float
    """Weight of the mean KL(base || tuned) in nats a token, beside the completion loss."""


NO_REHEARSAL = RehearsalSpec(kind="none", sequences=0, tokens_each=0, sequences_per_step=0, kl_weight=0.0)


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """A complete spec. Paths such as "rehearsal.kl_weight" name its values in findings and origins. What has a default here is
    younger than the first release: stored specs without it ran so."""

    learning_rate: float
    """Peak rate of AdamW; rises linearly during warm-up, then follows the schedule."""
    steps: int
    batch_size: int
    """Records in a batch, over all workers."""
    lora_rank: int
    lora_alpha: int
    target_modules: tuple[str, ...]
    warmup_ratio: float
    max_tokens: int
    """Longest example in tokens; longer prompts lose their beginning."""
    seed: int
    workers: int
    """Ray Train workers; the result does not depend on it beyond rounding."""
    rehearsal: RehearsalSpec
    method: Method = "lora"
    lora_dropout: float = 0.0
    weight_decay: float = 0.0
    schedule: Schedule = "cosine"
    """How the rate falls after warm-up: to a tenth of its peak, or not at all."""
    epochs: float | None = None
    """What `steps` was computed from; None when it was not."""
    gradient_accumulation: int = 1
    """Batches in a step."""
    max_grad_norm: float = 1.0
    """Clips the gradient's norm; 0 leaves it."""
    precision: Precision = "auto"

    @property
    def records_per_step(self) -> int:
        return self.batch_size * self.gradient_accumulation

    @property
    def plain_alpha(self) -> float:
        """The alpha of plain LoRA whose scale, alpha / rank, is this spec's. rsLoRA's is alpha / sqrt(rank)."""
        return self.lora_alpha * math.sqrt(self.lora_rank) if self.method == "rslora" else self.lora_alpha

    @property
    def scale(self) -> float:
        """What LoRA's updates are multiplied by."""
        return self.plain_alpha / self.lora_rank

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "target_modules": list(self.target_modules)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Raises TypeError for unknown or missing keys."""
        values = dict(content)
        rehearsal, targets = values.pop("rehearsal"), values.pop("target_modules")
        return cls(**values, rehearsal=RehearsalSpec(**rehearsal), target_modules=tuple(targets))

    def values(self) -> dict[str, object]:
        """Every value by its path."""
        flat: dict[str, object] = {
            f.name: getattr(self, f.name) for f in fields(self) if f.name != "rehearsal"
        }
        return {
            **flat,
            **{f"rehearsal.{f.name}": getattr(self.rehearsal, f.name) for f in fields(RehearsalSpec)},
        }


@dataclass(frozen=True)
class EffectiveSpec:
    """A spec that can run, with the origin of each value by path."""

    spec: TrainingSpec
    origins: Mapping[str, Origin]


DEFAULTS: Mapping[str, Any] = {
    "batch_size": 16,
    "lora_rank": 16,
    "lora_alpha": 32,
    "target_modules": ALL_LINEAR,
    "warmup_ratio": 0.1,
    "max_tokens": 256,
    "seed": 0,
    "workers": 1,
    "method": "lora",
    "lora_dropout": 0.0,
    "weight_decay": 0.0,
    "schedule": "cosine",
    "epochs": None,
    "gradient_accumulation": 1,
    "max_grad_norm": 1.0,
    "precision": "auto",
}
"""Values that depend on the data seldom or never."""

_REHEARSAL_PATHS = tuple(f"rehearsal.{f.name}" for f in fields(RehearsalSpec))


def resolve(user: Mapping[str, Any], suggested: TrainingSpec) -> EffectiveSpec:
    """Fills in what the user left out. `user` holds what was set, by path; `suggested` was made for it, so its steps follow
    from the user's epochs. Raises SpecError for values that cannot be run, alone or together."""
    platform = suggested.values()
    if unknown := set(user) - set(platform):
        raise SpecError(min(unknown), "is no value of a training spec")
    if {"epochs", "steps"} <= set(user):
        raise SpecError("epochs", "is set although steps is: the one follows from the other")
    chosen = {path: user.get(path, value) for path, value in platform.items()}
    origins: dict[str, Origin] = {path: _origin(path, user, value) for path, value in chosen.items()}
    if "epochs" in user:
        origins["steps"] = "user"
    if chosen["rehearsal.kind"] == "none":
        for path in _REHEARSAL_PATHS[1:]:
            if path in user:
                raise SpecError(path, "is set although rehearsal.kind is none")
            chosen[path], origins[path] = (
                getattr(NO_REHEARSAL, path.removeprefix("rehearsal.")),
                origins["rehearsal.kind"],
            )
    rehearsal = RehearsalSpec(
        **{path.removeprefix("rehearsal."): chosen.pop(path) for path in _REHEARSAL_PATHS}
    )
    spec = TrainingSpec(**{**chosen, "target_modules": tuple(chosen["target_modules"])}, rehearsal=rehearsal)
    check(spec, suggested.target_modules)
    return EffectiveSpec(spec, origins)


def _origin(path: str, user: Mapping[str, Any], value: object) -> Origin:
    if path in user:
        return "user"
    return "default" if path in DEFAULTS and value == DEFAULTS[path] else "suggested"


class SpecError(ValueError):
    """A value that cannot be run; `parameter` is its path."""

    def __init__(self, parameter: str, rule: str) -> None:
        super().__init__(f"{parameter} {rule}")
        self.parameter = parameter
        self.rule = rule


def check(spec: TrainingSpec, linear_modules: Sequence[str]) -> None:
    """Raises SpecError for the first value outside its range, with the guide's sentence, among them a module that the base does
    not have. Foolish values pass: assessment is for those."""
    for path, value in spec.values().items():
        if path.startswith("rehearsal.") and spec.rehearsal.kind == "none":
            continue
        if value is not None and (sentence := _refusal(GUIDE[path], value)):
            raise SpecError(path, f"is {_shown(value)}; it {sentence}")
    if not spec.target_modules or not set(spec.target_modules) <= set(linear_modules):
        raise SpecError(
            "target_modules", f"is {list(spec.target_modules)}; this base has {list(linear_modules)}"
        )
    if spec.plain_alpha > MAX_ALPHA:
        raise SpecError(
            "lora_alpha",
            f"is {spec.lora_alpha}; with {spec.method} at rank {spec.lora_rank} it is stored as {spec.plain_alpha:.0f}, and "
            f"adapters have at most {MAX_ALPHA}. {GUIDE['lora_alpha'].above}",
        )
    if spec.batch_size < spec.workers:
        raise SpecError(
            "workers", f"is {spec.workers}; each needs a record of the batch of {spec.batch_size}"
        )
    if spec.rehearsal.sequences_per_step > spec.rehearsal.sequences:
        raise SpecError(
            "rehearsal.sequences_per_step", f"is more than the {spec.rehearsal.sequences} sequences made"
        )


def check_context(spec: TrainingSpec, context: int) -> None:
    """Raises SpecError for a length that the base cannot read. `context` is the most tokens that it reads at once."""
    for path, length in (
        ("max_tokens", spec.max_tokens),
        ("rehearsal.tokens_each", spec.rehearsal.tokens_each),
    ):
        if length > context:
            above = GUIDE["max_tokens"].above
            raise SpecError(path, f"is {length}; the base's context is {context} tokens. {above}")


def _refusal(parameter: Parameter, value: Any) -> str:
    """Returns why a value cannot run; "" when it can."""
    if parameter.kind == "names":
        return ""  # the base decides
    if parameter.choices:
        return "" if value in parameter.choices else parameter.too_small
    if not parameter.reaches(value):
        return parameter.too_small
    return "" if parameter.fits(value) else parameter.too_large


def _shown(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
