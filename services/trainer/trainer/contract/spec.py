"""What a training run does: every value, and who chose it.

People set what they care about and leave the rest out; `resolve` fills the rest in and remembers for each
value whether the user gave it, the platform suggested it for this data, or it is a fixed default. The
effective spec is what runs and what the training manifest records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

Origin = Literal["default", "suggested", "user"]
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
    """A complete spec. Paths such as "rehearsal.kl_weight" name its values in findings and origins."""

    learning_rate: float
    """Peak rate of AdamW; rises linearly during warm-up, then falls along a cosine to a tenth of the peak."""
    steps: int
    batch_size: int
    """Records a step, over all workers."""
    lora_rank: int
    lora_alpha: int
    """LoRA updates are scaled by alpha / rank."""
    target_modules: tuple[str, ...]
    warmup_ratio: float
    max_tokens: int
    """Longest example in tokens; longer prompts lose their beginning."""
    seed: int
    workers: int
    """Ray Train workers; the result does not depend on it beyond rounding."""
    rehearsal: RehearsalSpec

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
}
"""Values that do not depend on the data."""

_REHEARSAL_PATHS = tuple(f"rehearsal.{f.name}" for f in fields(RehearsalSpec))


def resolve(user: Mapping[str, Any], suggested: TrainingSpec) -> EffectiveSpec:
    """Fills in what the user left out. `user` holds what was set, by path. Raises SpecError for values that
    cannot be run, alone or together."""
    platform = suggested.values()
    if unknown := set(user) - set(platform):
        raise SpecError(min(unknown), "is no value of a training spec")
    chosen = {path: user.get(path, value) for path, value in platform.items()}
    origins: dict[str, Origin] = {path: _origin(path, user) for path in chosen}
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


def _origin(path: str, user: Mapping[str, Any]) -> Origin:
    if path in user:
        return "user"
    return "default" if path in DEFAULTS else "suggested"


class SpecError(ValueError):
    """A value that cannot be run; `parameter` is its path."""

    def __init__(self, parameter: str, rule: str) -> None:
        super().__init__(f"{parameter} {rule}")
        self.parameter = parameter
        self.rule = rule


def check(spec: TrainingSpec, linear_modules: Sequence[str]) -> None:
    """Raises SpecError for the first value outside its range, among them a module that the base does not have. Foolish values
    pass: assessment is for those."""
    positive = ("learning_rate", "steps", "batch_size", "lora_rank", "lora_alpha", "max_tokens", "workers")
    for name in positive:
        if getattr(spec, name) <= 0:
            raise SpecError(name, f"is {getattr(spec, name)}; it must be above 0")
    if not 0 <= spec.warmup_ratio < 1:
        raise SpecError("warmup_ratio", f"is {spec.warmup_ratio}; it must be at least 0 and below 1")
    if not spec.target_modules or not set(spec.target_modules) <= set(linear_modules):
        raise SpecError(
            "target_modules", f"is {list(spec.target_modules)}; this base has {list(linear_modules)}"
        )
    if spec.batch_size < spec.workers:
        raise SpecError(
            "workers", f"is {spec.workers}; each needs a record of the batch of {spec.batch_size}"
        )
    if spec.rehearsal.kind == "none":
        return
    for name in ("sequences", "tokens_each", "sequences_per_step", "kl_weight"):
        if getattr(spec.rehearsal, name) <= 0:
            raise SpecError(f"rehearsal.{name}", f"is {getattr(spec.rehearsal, name)}; it must be above 0")
    if spec.rehearsal.sequences_per_step > spec.rehearsal.sequences:
        raise SpecError(
            "rehearsal.sequences_per_step", f"is more than the {spec.rehearsal.sequences} sequences made"
        )
