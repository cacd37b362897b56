"""Training specs between the API's message and this service's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openledger.trainer.v1 import trainer_pb2 as pb

from trainer.contract.spec import TrainingSpec

_METHODS: Mapping[str, pb.TuningMethod.ValueType] = {
    "lora": pb.TUNING_METHOD_LORA,
    "rslora": pb.TUNING_METHOD_RSLORA,
}
_SCHEDULES: Mapping[str, pb.LearningRateSchedule.ValueType] = {
    "linear": pb.LEARNING_RATE_SCHEDULE_LINEAR,
    "cosine": pb.LEARNING_RATE_SCHEDULE_COSINE,
    "constant": pb.LEARNING_RATE_SCHEDULE_CONSTANT,
}
_PRECISIONS: Mapping[str, pb.Precision.ValueType] = {
    "auto": pb.PRECISION_AUTO,
    "fp32": pb.PRECISION_FP32,
    "bf16": pb.PRECISION_BF16,
}
_REHEARSAL_KINDS: Mapping[str, pb.RehearsalKind.ValueType] = {
    "none": pb.REHEARSAL_KIND_NONE,
    "self_generated": pb.REHEARSAL_KIND_SELF_GENERATED,
}
_CHOICES: Mapping[str, Mapping[str, int]] = {
    "method": _METHODS,
    "schedule": _SCHEDULES,
    "precision": _PRECISIONS,
}
_NUMBERS = (
    "learning_rate",
    "steps",
    "batch_size",
    "lora_rank",
    "lora_alpha",
    "warmup_ratio",
    "max_tokens",
    "seed",
    "workers",
    "lora_dropout",
    "weight_decay",
    "epochs",
    "gradient_accumulation",
    "max_grad_norm",
)
_REHEARSAL_NUMBERS = ("sequences", "tokens_each", "sequences_per_step", "kl_weight")


def to_values(spec: pb.TrainingSpec) -> dict[str, Any]:
    """Returns what a client set, by path. A number that was set to zero is set; a choice is not while it is unspecified."""
    given = {field.name: value for field, value in spec.ListFields()}
    values: dict[str, Any] = {name: given[name] for name in _NUMBERS if name in given}
    if spec.target_modules:
        values["target_modules"] = tuple(spec.target_modules)
    for name, choices in _CHOICES.items():
        if (word := _word(choices, getattr(spec, name))) is not None:
            values[name] = word
    if (word := _word(_REHEARSAL_KINDS, spec.rehearsal.kind)) is not None:
        values["rehearsal.kind"] = word
    rehearsal = {field.name: value for field, value in spec.rehearsal.ListFields()}
    return values | {f"rehearsal.{name}": rehearsal[name] for name in _REHEARSAL_NUMBERS if name in rehearsal}


def _word(choices: Mapping[str, int], number: int) -> str | None:
    return next((word for word, value in choices.items() if value == number), None)


def to_proto(spec: TrainingSpec) -> pb.TrainingSpec:
    """Returns the message of a complete spec: without rehearsal, its numbers are not set."""
    rehearsal = pb.RehearsalSpec(kind=_REHEARSAL_KINDS[spec.rehearsal.kind])
    if spec.rehearsal.kind != "none":
        rehearsal.MergeFrom(
            pb.RehearsalSpec(**{name: getattr(spec.rehearsal, name) for name in _REHEARSAL_NUMBERS})
        )
    return pb.TrainingSpec(
        **{name: getattr(spec, name) for name in _NUMBERS},
        target_modules=spec.target_modules,
        method=_METHODS[spec.method],
        schedule=_SCHEDULES[spec.schedule],
        precision=_PRECISIONS[spec.precision],
        rehearsal=rehearsal,
    )


def values(spec: TrainingSpec, origins: Mapping[str, str]) -> list[pb.EffectiveValue]:
    """Every value that applies, with its origin: without rehearsal, its numbers are left out, as are epochs that no steps
    follow from. What is younger than a run was the default in it."""
    unused = {f"rehearsal.{name}" for name in _REHEARSAL_NUMBERS} if spec.rehearsal.kind == "none" else ()
    return [
        pb.EffectiveValue(parameter=path, value=_text(value), origin=origins.get(path, "default"))
        for path, value in spec.values().items()
        if path not in unused and value is not None
    ]


def _text(value: object) -> str:
    return (
        ",".join(value)
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )
