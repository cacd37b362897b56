"""What the platform would run: rules of thumb, each from a measurement or a paper that the guide cites.

A suggestion never triggers a warning about one of its own values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from openledger_client.training_parameters import GUIDE
from trainer.contract.spec import DEFAULTS, RehearsalSpec, TrainingSpec
from trainer.facts import CHARACTERS_A_TOKEN, UNKNOWN, DataFacts, Surroundings

FEW_STEPS = 100
"""Below, a run has no time to learn slowly."""
RATE_FEW_STEPS = 5e-4
RATE_MANY_STEPS = 2e-4
MOST_EPOCHS = 5
"""Records that are seen more often are memorised (arXiv 2202.07646)."""
REHEARSAL = RehearsalSpec(
    kind="self_generated", sequences=128, tokens_each=48, sequences_per_step=6, kl_weight=2.0
)

_EPOCHS = 2
_LEAST_STEPS, _MOST_STEPS = 40, 1000


def suggest(facts: DataFacts, user: Mapping[str, Any], around: Surroundings = UNKNOWN) -> TrainingSpec:
    """A complete spec for this data and this base, given what the user fixed (`user`, by path): a rate depends on the
    steps, and steps on the batches."""
    most = int(GUIDE["max_tokens"].most or 0)
    context = most if around.context is None else min(most, around.context)
    batch_size = int(user.get("batch_size", _batch_size(facts, int(user.get("workers", 1)))))
    accumulation = int(user.get("gradient_accumulation", DEFAULTS["gradient_accumulation"]))
    steps = int(user.get("steps", _steps(facts, max(1, batch_size * accumulation), user.get("epochs"))))
    return TrainingSpec(
        learning_rate=RATE_FEW_STEPS if steps < FEW_STEPS else RATE_MANY_STEPS,
        steps=steps,
        rehearsal=replace(REHEARSAL, tokens_each=min(REHEARSAL.tokens_each, context)),
        **{
            **DEFAULTS,
            "batch_size": batch_size,
            "max_tokens": min(_max_tokens(facts), context),
            "target_modules": tuple(around.linear_modules),
        },
    )


def longest(facts: DataFacts) -> int:
    """Returns the tokens of a record that one in twenty exceeds, about."""
    return math.ceil(facts.long_characters / CHARACTERS_A_TOKEN)


def _batch_size(facts: DataFacts, workers: int) -> int:
    """Sixteen, or the power of two at which the least steps see no record more than five times."""
    fits = max(1, MOST_EPOCHS * facts.train_records // _LEAST_STEPS)
    return max(min(int(DEFAULTS["batch_size"]), 1 << (fits.bit_length() - 1)), workers)


def _steps(facts: DataFacts, records: int, epochs: float | None) -> int:
    """Steps of this many records each: the user's epochs, else two, within bounds."""
    if epochs is not None:
        return max(1, math.ceil(epochs * facts.train_records / records))
    enough = max(math.ceil(_EPOCHS * facts.train_records / records), _LEAST_STEPS)
    return max(1, min(enough, MOST_EPOCHS * facts.train_records // records, _MOST_STEPS))


def _max_tokens(facts: DataFacts) -> int:
    usual = int(DEFAULTS["max_tokens"])
    return usual if longest(facts) <= usual else int(longest(facts) * 1.2)
