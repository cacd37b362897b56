"""From an item's log-likelihoods to its value: the scoring rules, shared by the trainer and the verifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

from evalstats.metric import Metric


class Rule(StrEnum):
    """How log-likelihoods become a value. A rule's meaning never changes: a new one gets a new name."""

    CHOICE_SUM = "choice-sum"
    """The option with the highest log-likelihood is chosen: right where options are the classes of a
    classifier."""
    CHOICE_PER_BYTE = "choice-per-byte"
    """The option with the highest log-likelihood per UTF-8 byte is chosen, its first blank counted too."""
    ACC = "acc"
    """`acc` of EleutherAI's evaluation harness (lm-eval): the option with the highest log-likelihood is chosen."""
    ACC_BYTES = "acc_bytes"
    """`acc_bytes` of lm-eval: the option with the highest log-likelihood per UTF-8 byte is chosen. The blank that joins an
    option to its question is scored and not counted."""
    BITS_PER_BYTE = "bits-per-byte"
    """Minus the text's log-likelihood, in bits, over its length in UTF-8 bytes: comparable between tokenizers. A suite's
    figure is the mean over texts; lm-eval's `bits_per_byte` divides all bits by all bytes."""

    @property
    def metric(self) -> Metric:
        return Metric.BITS_PER_BYTE if self is Rule.BITS_PER_BYTE else Metric.ACCURACY


def value(rule: Rule, log_likelihoods: Sequence[float], options: Sequence[str], gold: int) -> float:
    """An item's value. Of options that tie the first is chosen. Raises ValueError when the numbers do not
    fit."""
    if len(log_likelihoods) != len(options) or not 0 <= gold < len(options):
        raise ValueError(f"{len(log_likelihoods)} log-likelihoods, {len(options)} options, gold {gold}")
    lengths = [len(option.encode()) for option in options]
    if rule is Rule.BITS_PER_BYTE:
        return -log_likelihoods[gold] / (math.log(2) * lengths[gold])
    if rule is Rule.ACC_BYTES:
        lengths = [len(option.removeprefix(" ").encode()) for option in options]
        if not all(lengths):
            raise ValueError(f"an option is a blank alone: {list(options)}")
    if rule in (Rule.CHOICE_PER_BYTE, Rule.ACC_BYTES):
        scores = [score / length for score, length in zip(log_likelihoods, lengths, strict=True)]
    else:
        scores = list(log_likelihoods)
    return 1.0 if max(range(len(scores)), key=scores.__getitem__) == gold else 0.0
