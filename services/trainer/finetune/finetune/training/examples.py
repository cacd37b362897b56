"""What is learned from, in which order: decided entirely by the spec and the data before the first step.

The whole schedule is computed up front from the seed, so a resumed run sees exactly the batches that
an uninterrupted one would have seen, and the training manifest can say how often each record was used.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from identity.snapshot import read_lines
from modelkit.prompt import PromptTemplate, encode
from modelkit.splits import TRAIN, JointSplits
from servicekit.objects import ObjectStore
from trainer.contract.spec import TrainingSpec

_BATCHES_SORTED_TOGETHER = 8
"""Batches are cut from runs of this many, sorted by length: half the padding, while the order stays
random."""


@dataclass(frozen=True, kw_only=True)
class SnapshotSource:
    """A sealed snapshot to train on."""

    name: str
    """`datanets/{datanet}/snapshots/{number}`."""
    root: str
    records_digest: str
    manifest_digest: str
    weight: float
    template: PromptTemplate


@dataclass(frozen=True, kw_only=True)
class Example:
    """One record to train on, as tokens."""

    snapshot: int
    """Its place in the list of sources."""
    record_digest: str
    tokens: tuple[int, ...]
    completion_start: int
    truncated: bool


class NothingToTrainOn(ValueError):
    """No source has a record that may be trained on."""


def load_examples(
    sources: Sequence[SnapshotSource], tokenizer: PreTrainedTokenizerBase, store: ObjectStore, max_tokens: int
) -> list[Example]:
    """Every record that may be trained on, in the snapshots' canonical order: in a train split, and neither held out nor
    control in any of the snapshots, nor in one cluster with such a record.

    Raises CorruptSnapshot, NotFound, NothingToTrainOn, or TemplateError for a record that cannot be rendered.
    """
    snapshots = [list(read_lines(store.get_bytes(source.records_digest))) for source in sources]
    splits = JointSplits(snapshots)
    examples, withheld = [], 0
    for place, (source, lines) in enumerate(zip(sources, snapshots, strict=True)):
        for line in lines:
            if line.split != TRAIN:
                continue
            if not splits.trainable(line.record_digest):
                withheld += 1
                continue
            encoded = encode(source.template, tokenizer, line.record, max_tokens)
            examples.append(
                Example(
                    snapshot=place,
                    record_digest=line.record_digest,
                    tokens=encoded.tokens,
                    completion_start=encoded.completion_start,
                    truncated=encoded.truncated,
                )
            )
    if not examples:
        raise NothingToTrainOn(
            f"no record to train on in {', '.join(s.name for s in sources)}: of those in a train split, {withheld} are "
            "held out or control in another snapshot, or in one cluster with such a record"
        )
    return examples


def schedule(
    lengths: Sequence[int], weights: Sequence[float], steps: int, batch_size: int, seed: int
) -> list[list[int]]:
    """Indices of the records of every step, `[steps][batch_size]`.

    Records come in shuffled epochs. In each, a record appears w times on average, w being its weight divided
    by the greatest weight: surely for the whole part, by chance for the rest.
    """
    chance = random.Random(seed)
    greatest = max(weights)
    order: list[int] = []
    while len(order) < steps * batch_size:
        epoch = [index for index, weight in enumerate(weights) if chance.random() < weight / greatest]
        chance.shuffle(epoch)
        order.extend(epoch)
    batches: list[list[int]] = []
    window = _BATCHES_SORTED_TOGETHER * batch_size
    for start in range(0, steps * batch_size, window):
        near = sorted(order[start : min(start + window, steps * batch_size)], key=lengths.__getitem__)
        cut = [near[i : i + batch_size] for i in range(0, len(near), batch_size)]
        chance.shuffle(cut)
        batches.extend(cut)
    return batches


def learning_rate(step: int, spec: TrainingSpec) -> float:
    """Rate of `step` (from 0): linear warm-up to the peak, then by the schedule down to a tenth of it, or constant."""
    steps, peak, warmup_ratio = spec.steps, spec.learning_rate, spec.warmup_ratio
    warmup = math.ceil(steps * warmup_ratio)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, steps - warmup)
    if spec.schedule == "constant":
        return peak
    if spec.schedule == "linear":
        return peak * (1 - 0.9 * progress)
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))
