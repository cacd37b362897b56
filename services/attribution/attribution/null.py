"""The null distribution: influences of records that are unrelated to an answer. Contributors are tested against it.

Control records passed the same review as training records and were not trained on. For one answer, most of them are
irrelevant and a few are relevant, as with training records. The bulk therefore shows the noise: deviations of the lower
half of the controls from their median, mirrored upwards. Relevant controls are above the median and do not inflate it.
The assumption is that noise is symmetric about the median, as the cosine of unrelated gradients is.

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
    """How far each control of the lower half is below the center [about half of the controls]."""
    threshold: float
    """A cluster's score counts only above it; never below 0."""
    chance_excess: float
    """Mean excess over the threshold of a cluster that is noise."""


def noise(control: Scores, quantile: float) -> Noise:
    """Returns the null distribution of control scores [controls], at least two of them."""
    center = float(np.median(control))
    deviations = center - control[control < center]
    if not len(deviations):
        return Noise(center, np.zeros(1), max(0.0, center), 0.0)
    tau = max(0.0, center + threshold(deviations, quantile))
    # Only half of the noise is above the median, and only that can exceed the threshold.
    chance = 0.5 * float(excess(center + deviations, tau).mean())
    return Noise(center, deviations, tau, chance)


def threshold(control: Scores, quantile: float) -> float:
    """Returns the quantile of control scores above which a trained cluster's score counts; never below 0."""
    return max(0.0, float(np.quantile(control, quantile)))


def excess(scores: Scores, tau: float) -> Scores:
    """Returns how far each score is above the threshold, or 0."""
    return np.maximum(scores - tau, 0.0)


def permutation_p_value(
    scores: Scores, control: Scores, *, quantile: float, permutations: int, generator: np.random.Generator
) -> float:
    """Returns the one-sided p-value of the hypothesis that `scores` exceed the threshold in sum no more than the same
    number of controls.

    The threshold is the quantile of both together: if it depended on the labels, the test would not be exact. Uses
    `permutations` random relabelings; the smallest possible p is 1 / (permutations + 1).
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
    """Returns p-values by Holm's step-down correction (Holm 1979), to compare with the family's level."""
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * (count - np.arange(count)))
    corrected = np.empty(count)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def cross_fitted_exceedance(control: Scores, quantile: float, generator: np.random.Generator) -> float:
    """Returns the fraction of one half of the controls above the other half's threshold, averaged over both directions.

    The nominal rate is 1 - quantile. The controls' own quantile would match it by construction.
    """
    order = generator.permutation(len(control))
    one, other = control[order[::2]], control[order[1::2]]
    if not len(one) or not len(other):
        return 0.0
    rates = [np.mean(test > threshold(fit, quantile)) for fit, test in ((one, other), (other, one))]
    return float(np.mean(rates))
