"""How long a run will take here: from the measured speed of the newest run of the same base, else from the model's size."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.contract.spec import TrainingSpec
from trainer.facts import CHARACTERS_A_TOKEN, DataFacts

START_S = 25.0
"""Ray's workers, imports, loading the base."""

PARAMETER_TOKENS_PER_S = 5.0e10
"""Parameters times training tokens a second: SmolLM2-135M trains 370 tokens a second on two cores in fp32."""


@dataclass(frozen=True)
class Expectation:
    """An expected time and what it rests on."""

    seconds: float
    """From submission to result."""
    basis: str


def expected(spec: TrainingSpec, facts: DataFacts, tokens_per_s: float, parameter_count: int) -> Expectation:
    """Returns how long a run takes at `tokens_per_s`, or, where no run of this base has succeeded (0), for its size.

    Sampling rehearsal is counted like training on it: one token at a time costs about what a forward and a
    backward pass over many do.
    """
    basis = "the newest run of this base model here"
    if tokens_per_s <= 0:
        tokens_per_s = PARAMETER_TOKENS_PER_S / max(parameter_count, 1)
        basis = "the base model's size, on two CPU cores; no run of it has succeeded here yet"
    record = min(facts.mean_characters / CHARACTERS_A_TOKEN, spec.max_tokens)
    rehearsal = spec.rehearsal
    tokens = spec.steps * (
        spec.records_per_step * record + rehearsal.sequences_per_step * rehearsal.tokens_each
    )
    sampled = rehearsal.sequences * rehearsal.tokens_each
    return Expectation(round(START_S + (tokens + sampled) / tokens_per_s, 1), basis)
