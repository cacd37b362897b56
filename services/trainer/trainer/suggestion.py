"""What the platform would run: rules of thumb, each from a measurement or a paper that `assessment` cites."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.contract.spec import ALL_LINEAR, DEFAULTS, RehearsalSpec, TrainingSpec
from trainer.facts import DataFacts

FEW_STEPS = 100
"""Below, a run has no time to learn slowly."""
RATE_FEW_STEPS = 5e-4
RATE_MANY_STEPS = 2e-4
REHEARSAL = RehearsalSpec(
    kind="self_generated", sequences=128, tokens_each=48, sequences_per_step=6, kl_weight=2.0
)

_EPOCHS = 2
_LEAST_STEPS, _MOST_STEPS = 40, 1000


def suggest(
    facts: DataFacts, user: Mapping[str, Any], linear_modules: Sequence[str] = ALL_LINEAR
) -> TrainingSpec:
    """A complete spec for this data, given what the user fixed (`user`, by path): a rate depends on the
    steps. The targets are all linear layers of the base."""
    batch_size = int(user.get("batch_size", DEFAULTS["batch_size"]))
    needed = math.ceil(_EPOCHS * facts.train_records / batch_size)
    steps = int(user.get("steps", min(max(needed, _LEAST_STEPS), _MOST_STEPS)))
    return TrainingSpec(
        learning_rate=RATE_FEW_STEPS if steps < FEW_STEPS else RATE_MANY_STEPS,
        steps=steps,
        rehearsal=REHEARSAL,
        **{**DEFAULTS, "batch_size": batch_size, "target_modules": tuple(linear_modules)},
    )
