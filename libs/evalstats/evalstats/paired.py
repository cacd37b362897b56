"""The data every statistic here is about: two models' values on the same items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Metric(StrEnum):
    """What an item's value means, and which direction is better."""

    ACCURACY = "accuracy"
    """1 when the model's choice is the right one, else 0. Higher is better."""
    BITS_PER_BYTE = "bits_per_byte"
    """Bits the model needs per UTF-8 byte of the text. Lower is better."""

    @property
    def sign(self) -> int:
        """+1 where higher is better, -1 where lower is better: gain = sign * (tuned - base)."""
        return 1 if self is Metric.ACCURACY else -1

    @property
    def binary(self) -> bool:
        return self is Metric.ACCURACY


class TooFewClusters(ValueError):
    """All items are one cluster: a single piece of evidence, from which no error can be estimated."""


@dataclass(frozen=True)
class Interval:
    """A two-sided interval and how it was made."""

    lower: float
    upper: float
    method: str


@dataclass(frozen=True)
class PairedValues:
    """Values of base and tuned model on the same items, in the same order.

    base, tuned: float64 [items]; clusters: int64 [items], 0..G-1, items that are not independent of each
    other (one video, one near-duplicate cluster) share a number.
    """

    metric: Metric
    base: Floats
    tuned: Floats
    clusters: Ints

    def __post_init__(self) -> None:
        n = len(self.base)
        if n == 0 or len(self.tuned) != n or len(self.clusters) != n:
            raise ValueError(f"paired values need one or more items in equal number: {n}, {len(self.tuned)}")
        values = np.concatenate([self.base, self.tuned])
        if not np.isfinite(values).all():
            raise ValueError("an item's value is not a finite number")
        if self.metric.binary and not np.isin(values, (0.0, 1.0)).all():
            raise ValueError(f"{self.metric} values must be 0 or 1")

    @property
    def n(self) -> int:
        return len(self.base)

    @property
    def gains(self) -> Floats:
        """Per item, how much better the tuned model does: worse is negative whatever the metric. [items]"""
        return self.metric.sign * (self.tuned - self.base)


def cluster_numbers(names: Sequence[str]) -> Ints:
    """Cluster names to numbers 0..G-1, in order of first appearance (so that results depend on items
    alone)."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


def cluster_sums(values: Floats, clusters: Ints) -> tuple[Floats, Floats]:
    """Sum and size of each cluster: two float64 [clusters]."""
    sums = np.bincount(clusters, weights=values).astype(np.float64)
    sizes = np.bincount(clusters).astype(np.float64)
    return sums, sizes
