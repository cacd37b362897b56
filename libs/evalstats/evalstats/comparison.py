"""One suite's statistics: both models' values and their paired difference, with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evalstats.bootstrap import MeanDistribution
from evalstats.cluster import cluster_standard_error, design_effect
from evalstats.metric import Metric
from evalstats.paired import Floats, Interval, Ints, PairedValues
from evalstats.proportions import tango, wilson
from evalstats.signflip import exact_regression_p, sampled_regression_p


@dataclass(frozen=True)
class Method:
    """What a reader must know to recompute a report's figures."""

    confidence: float = 0.95
    """Of two-sided intervals and of each one-sided bound."""
    resamples: int = 10_000
    seed: int = 20_240_601

    def __post_init__(self) -> None:
        if not 0.5 < self.confidence < 1:
            raise ValueError(f"confidence {self.confidence} must lie between 0.5 and 1")
        if self.resamples < 1_000:
            raise ValueError(f"{self.resamples} resamples are too few for a 95% bound; 1,000 or more")

    @property
    def alpha(self) -> float:
        return 1 - self.confidence


@dataclass(frozen=True)
class Level:
    """How one model does on a suite: mean value and two-sided interval."""

    value: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Tuned against base on one suite. All differences are gains: worse is negative whatever the metric.

    Intervals and the p-value hold for a number of items that was fixed in advance. Where scoring stopped at a verdict,
    the bounds of `evalstats.sequential` hold.
    """

    n: int
    clusters: int
    design_effect: float
    base: Level
    tuned: Level
    gain: float
    interval: Interval
    """Two-sided."""
    lower_bound: float
    """One-sided: with the method's confidence the gain is above it."""
    upper_bound: float
    """One-sided: with the method's confidence the gain is below it."""
    standard_error: float
    improved: int
    """Items on which the tuned model does better."""
    worsened: int
    regression_p: float
    """One-sided p-value of "the tuned model is worse"."""


def compare(pairs: PairedValues, method: Method) -> Comparison:
    """All statistics of one suite at a fixed number of items.

    With one cluster nothing can be inferred: intervals of means are then as wide as the values, and say so by their
    method "one-cluster". Every figure is finite for every input.
    """
    gains = pairs.gains
    clusters = int(pairs.clusters.max()) + 1
    effect = design_effect(gains, pairs.clusters)
    if pairs.metric.binary:
        interval, lower, upper = _difference_of_proportions(gains, effect, method)
        p_value = exact_regression_p(gains, pairs.clusters)
    else:
        interval, lower, upper = _mean_bounds(gains, pairs.clusters, method)
        p_value = sampled_regression_p(gains, pairs.clusters, method.resamples, method.seed)
    return Comparison(
        n=pairs.n,
        clusters=clusters,
        design_effect=effect,
        base=level(pairs.metric, pairs.base, pairs.clusters, method),
        tuned=level(pairs.metric, pairs.tuned, pairs.clusters, method),
        gain=float(gains.mean()),
        interval=interval,
        lower_bound=lower,
        upper_bound=upper,
        standard_error=_standard_error(gains, pairs.clusters),
        improved=int(np.count_nonzero(gains > 0)),
        worsened=int(np.count_nonzero(gains < 0)),
        regression_p=p_value,
    )


def level(metric: Metric, values: Floats, clusters: Ints, method: Method) -> Level:
    """One model's mean with its interval: Wilson's (counts over the design effect), or the studentised
    bootstrap."""
    mean = float(values.mean())
    if metric.binary:
        n = len(values) / design_effect(values, clusters)
        return Level(mean, Interval(*wilson(mean * n, n, method.confidence), "wilson"))
    return Level(mean, _mean_bounds(values, clusters, method)[0])


def _difference_of_proportions(gains: Floats, effect: float, method: Method) -> tuple[Interval, float, float]:
    improved = float(np.count_nonzero(gains > 0)) / effect
    worsened = float(np.count_nonzero(gains < 0)) / effect
    n = len(gains) / effect
    two_sided = tango(improved, worsened, n, method.confidence)
    # Each end of the two-sided interval at 1 - 2 alpha is a one-sided bound at 1 - alpha.
    lower, upper = tango(improved, worsened, n, 1 - 2 * method.alpha)
    return Interval(*two_sided, "tango"), lower, upper


def _mean_bounds(values: Floats, clusters: Ints, method: Method) -> tuple[Interval, float, float]:
    """Two-sided interval, one-sided lower and upper bound."""
    if clusters.max() == 0:
        low, high = float(values.mean()) - _reach(values), float(values.mean()) + _reach(values)
        return Interval(low, high, "one-cluster"), low, high
    distribution = MeanDistribution(values, clusters, method.resamples, method.seed)
    low, high = (distribution.quantile(q) for q in (method.alpha / 2, 1 - method.alpha / 2))
    interval = Interval(low, high, distribution.method)
    return interval, distribution.quantile(method.alpha), distribution.quantile(1 - method.alpha)


def _standard_error(values: Floats, clusters: Ints) -> float:
    return _reach(values) if clusters.max() == 0 else cluster_standard_error(values, clusters)


def _reach(values: Floats) -> float:
    """What stands for an error that cannot be estimated: the largest value, or 1."""
    return max(1.0, float(np.abs(values).max()))
