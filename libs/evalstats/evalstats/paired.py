"""The data every statistic here is about: two models' values on the same items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalstats.metric import Metric
from evalstats.outcomes import Outcomes, check_pair

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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


def pair(metric: Metric, base: Outcomes, tuned: Outcomes) -> PairedValues:
    """Both models' values side by side. Raises InvalidOutcomes unless they answered the same items alike."""
    check_pair(base, tuned)
    return PairedValues(
        metric,
        np.array([item.value for item in base.items]),
        np.array([item.value for item in tuned.items]),
        cluster_numbers([item.cluster for item in base.items]),
    )


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
