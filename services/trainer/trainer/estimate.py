"""How long a run will take here: from the measured speed of the newest run of the same base."""

from __future__ import annotations

from trainer.facts import CHARACTERS_A_TOKEN, DataFacts
from trainer.spec import TrainingSpec

START_S = 25.0
"""Ray's workers, imports, loading the base."""


def expected_seconds(spec: TrainingSpec, facts: DataFacts, tokens_per_s: float) -> float:
    """Seconds from hand-over to result; 0 when no run of this base has succeeded yet.

    Sampling replay is counted like training on it: one token at a time costs about what a forward and a
    backward pass over many do.
    """
    if tokens_per_s <= 0:
        return 0.0
    record = min(facts.mean_characters / CHARACTERS_A_TOKEN, spec.max_tokens)
    replay = spec.replay
    tokens = spec.steps * (spec.batch_size * record + replay.sequences_per_step * replay.tokens_each)
    return round(START_S + (tokens + replay.sequences * replay.tokens_each) / tokens_per_s, 1)
