"""From an item's log-likelihoods to its value: the scoring rules, shared by the trainer and the verifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

from evalstats.paired import Metric


class Rule(StrEnum):
    """How log-likelihoods become a value. A rule's meaning never changes: a new one gets a new name."""

    CHOICE_SUM = "choice-sum"
    """The option with the highest log-likelihood is chosen: right where options are the classes of a
    classifier."""
    CHOICE_PER_BYTE = "choice-per-byte"
    """The option with the highest log-likelihood per UTF-8 byte is chosen, so that length does not decide
    (the "acc_norm" of EleutherAI's evaluation harness, in bytes)."""
    BITS_PER_BYTE = "bits-per-byte"
    """Minus the text's log-likelihood, in bits, over its length in UTF-8 bytes: comparable between
    tokenizers."""

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
    if rule is Rule.CHOICE_PER_BYTE:
        scores = [score / length for score, length in zip(log_likelihoods, lengths, strict=True)]
    else:
        scores = list(log_likelihoods)
    return 1.0 if max(range(len(scores)), key=scores.__getitem__) == gold else 0.0
