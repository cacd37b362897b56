"""What influences look like when a record has nothing to do with an answer: the null that contributors are tested
against.

Control records passed the same review as training records and were kept out of training. On one answer most of them
are beside the point, and a few are relevant, as most and few of the training records are. The bulk therefore shows the
noise: deviations of the lower half of the controls from their median, mirrored upwards. Relevant controls lie above
the median and do not inflate it. That noise is symmetric about the median is the assumption; it is what a cosine of
unrelated gradients has.

Tests are permutation tests of the upper deviations of a contributor's clusters against the lower deviations of the
controls, which are exchangeable under the null (Phipson & Smyth 2010 for the +1 that keeps p above 0).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from attribution.clusters import Scores


@dataclass(frozen=True)
class Noise:
    """The null of one answer."""

    center: float
    """Median of the controls."""
    deviations: Scores
    """How far each control of the lower half is below it [about half of the controls]."""
    threshold: float
    """A cluster's score must exceed it to count; never below 0."""
    chance_excess: float
    """Mean excess over the threshold of a cluster that is noise."""


def noise(control: Scores, quantile: float) -> Noise:
    """The null from control scores [controls], at least two of them."""
    center = float(np.median(control))
    deviations = center - control[control < center]
    if not len(deviations):
        return Noise(center, np.zeros(1), max(0.0, center), 0.0)
    tau = max(0.0, center + threshold(deviations, quantile))
    # Only half of the noise is above the median, and only that can exceed the threshold.
    chance = 0.5 * float(excess(center + deviations, tau).mean())
    return Noise(center, deviations, tau, chance)


def threshold(control: Scores, quantile: float) -> float:
    """The quantile of the control scores that a trained cluster's score must exceed to count; never below
    0."""
    return max(0.0, float(np.quantile(control, quantile)))


def excess(scores: Scores, tau: float) -> Scores:
    """How far each score is above the threshold, else 0."""
    return np.maximum(scores - tau, 0.0)


def permutation_p_value(
    scores: Scores, control: Scores, quantile: float, permutations: int, generator: np.random.Generator
) -> float:
    """One-sided p-value that `scores` exceed the threshold in sum no more than as many controls would.

    The threshold is the quantile of both together: it must not know who is who, or the test would not be
    exact. `permutations` random relabelings; the smallest possible p is 1 / (permutations + 1).
    """
    pool = np.concatenate([scores, control])
    above = excess(pool, threshold(pool, quantile))
    observed = above[: len(scores)].sum()
    if observed <= 0:
        return 1.0
    keys = generator.random((permutations, len(pool)), dtype=np.float32)
    chosen = np.argpartition(keys, len(scores) - 1, axis=1)[:, : len(scores)]
    relabeled = above[chosen].sum(axis=1)
    return float((1 + np.count_nonzero(relabeled >= observed - 1e-12)) / (permutations + 1))


def holm(p_values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Holm's step-down correction: p-values that may be compared with the family's level (Holm 1979)."""
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * (count - np.arange(count)))
    corrected = np.empty(count)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def cross_fitted_exceedance(control: Scores, quantile: float, generator: np.random.Generator) -> float:
    """Part of one half of the controls above the threshold that the other half sets, mean of both ways.

    The nominal rate is 1 - quantile; the controls' own quantile would meet it by construction and prove
    nothing.
    """
    order = generator.permutation(len(control))
    one, other = control[order[::2]], control[order[1::2]]
    if not len(one) or not len(other):
        return 0.0
    rates = [np.mean(test > threshold(fit, quantile)) for fit, test in ((one, other), (other, one))]
    return float(np.mean(rates))
