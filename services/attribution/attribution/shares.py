"""Computes contributors' shares of an answer from the influences of clusters; the rest is unattributed.

Two questions, in this order. Which part of the answer is due to fine-tuning? Whose records were relevant to it?

    fine-tuning      b  = max(0, 1 - p_base(answer) / p_tuned(answer))   the probability of necessity of the adapter
    excess           e  = max(0, s - tau) of a trained cluster; tau and the chance excess e0 come from the null (null.py)
    mass             m_j = max(0, sum of contributor j's e - n_j e0)
    share of j          = b m_j / sum of all m     if j's test rejects the null, 0 otherwise

b is Tian and Pearl's (2000) bound on the probability of necessity. It is exact here up to monotonicity, because the same
prompt is scored with and without the adapter: no record earns anything for what the base would have said anyway. The
tests are one-sided at a family-wise 5% (Holm over contributors). Shares are rounded to ppm by largest remainder, so that
they add up exactly. Intervals are percentile bootstrap over trained and control clusters (each resample estimates the
null again), with b and the outcomes of the tests held fixed: they describe the size of an accepted contributor's share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from attribution import null
from attribution.clusters import Scores

PPM = 1_000_000

BELOW_NOISE = "no contributor's records have influence above the noise that control records show"
"""Why nothing is attributed although the answer is due to fine-tuning."""

Owners = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ShareParameters:
    """The parameters of the method; part of each record."""

    threshold_quantile: float = 0.95
    alpha: float = 0.05
    permutations: int = 1999
    resamples: int = 1000
    confidence: float = 0.95
    min_controls: int = 20
    """With fewer control clusters the noise cannot be estimated, and nothing is attributed."""

    def to_json(self) -> dict[str, float | int]:
        """Returns a JSON object with the same fields."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Shares of one answer. Arrays are by contributor, in the order of the cluster table."""

    ppm: tuple[int, ...]
    unattributed_ppm: int
    lower_ppm: tuple[float, ...]
    upper_ppm: tuple[float, ...]
    p_values: tuple[float, ...]
    """Holm-corrected."""
    threshold: float
    chance_excess: float
    mass: float
    reason: str
    """Why nothing is attributed; "" if something is."""


def attribute(
    trained: Scores,
    owners: Owners,
    control: Scores,
    *,
    contributors: int,
    parameters: ShareParameters,
    generator: np.random.Generator,
    brought: float = 1.0,
) -> Shares:
    """Returns the shares of one answer.

    Args:
        trained: influence of each trained cluster, [clusters].
        owners: contributor of each trained cluster, [clusters]; -1 if no contributor can be credited.
        control: influence of each control cluster, [controls].
        contributors: number of contributors.
        parameters: of the method.
        generator: source of all randomness.
        brought: the part of the answer that is due to fine-tuning, in [0, 1].
    """
    if len(control) < parameters.min_controls:
        return nothing(
            contributors,
            f"{len(control)} control clusters are too few to tell influence from "
            f"chance; at least {parameters.min_controls} are needed",
        )
    if brought <= 0:
        return nothing(contributors, "the base model alone gives this answer at least the same probability")
    null_of_answer = null.noise(control, parameters.threshold_quantile)
    masses = _masses(trained, owners, contributors, null_of_answer)
    total = float(masses.sum())
    if total <= 0:
        return nothing(contributors, BELOW_NOISE)
    p_values = corrected_p_values(
        trained,
        owners,
        null_of_answer,
        contributors=contributors,
        parameters=parameters,
        generator=generator,
    )
    accepted = p_values <= parameters.alpha
    fractions = brought * masses[:contributors] / total * accepted
    lower, upper = _intervals(
        trained,
        owners,
        control,
        accepted=accepted,
        brought=brought,
        parameters=parameters,
        generator=generator,
    )
    *ppm, rest = largest_remainder([*fractions, max(0.0, 1.0 - float(fractions.sum()))], PPM)
    return Shares(
        ppm=tuple(ppm),
        unattributed_ppm=rest,
        lower_ppm=tuple(lower),
        upper_ppm=tuple(upper),
        p_values=tuple(p_values),
        threshold=null_of_answer.threshold,
        chance_excess=null_of_answer.chance_excess,
        mass=total,
        reason="" if any(ppm) else BELOW_NOISE,
    )


def nothing(contributors: int, reason: str) -> Shares:
    """Returns the shares of an unattributed answer."""
    zeros = (0.0,) * contributors
    return Shares(
        ppm=(0,) * contributors,
        unattributed_ppm=PPM,
        lower_ppm=zeros,
        upper_ppm=zeros,
        p_values=(1.0,) * contributors,
        threshold=0.0,
        chance_excess=0.0,
        mass=0.0,
        reason=reason,
    )


def corrected_p_values(
    trained: Scores,
    owners: Owners,
    null_of_answer: null.Noise,
    *,
    contributors: int,
    parameters: ShareParameters,
    generator: np.random.Generator,
) -> Scores:
    """Returns each contributor's Holm-corrected p-value against the null; 1 for a contributor without clusters."""
    p_values = np.ones(contributors)
    tested = np.unique(owners[owners >= 0])
    for owner in tested:
        above = trained[owners == owner] - null_of_answer.center
        if (above > 0).any():
            p_values[owner] = null.permutation_p_value(
                above[above > 0],
                null_of_answer.deviations,
                quantile=0.0,  # sum all deviations: power for many small ones and for few large ones
                permutations=parameters.permutations,
                generator=generator,
            )
    p_values[tested] = null.holm(p_values[tested])
    return p_values


def largest_remainder(weights: Sequence[float], total: int) -> list[int]:
    """Returns `total` in whole parts proportional to the non-negative weights, by largest remainder. Exact; ties go to the
    earlier weight."""
    exact = [Fraction(float(weight)) for weight in weights]
    whole = sum(exact)
    if whole <= 0 or min(exact) < 0:
        raise ValueError(f"weights must be at least 0, and one of them above 0, got {list(weights)}")
    quotas = [weight * total / whole for weight in exact]
    parts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(parts)), key=lambda index: (parts[index] - quotas[index], index))
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts


def _masses(trained: Scores, owners: Owners, contributors: int, null_of_answer: null.Noise) -> Scores:
    """Returns each contributor's mass above chance, and last that of clusters without owner: [contributors + 1]."""
    columns = np.where(owners >= 0, owners, contributors)
    above = null.excess(trained, null_of_answer.threshold) - null_of_answer.chance_excess
    return np.maximum(np.bincount(columns, weights=above, minlength=contributors + 1), 0.0)


def _intervals(
    trained: Scores,
    owners: Owners,
    control: Scores,
    *,
    accepted: npt.NDArray[np.bool_],
    brought: float,
    parameters: ShareParameters,
    generator: np.random.Generator,
) -> tuple[Scores, Scores]:
    """Returns percentile intervals of the accepted contributors' shares, in ppm; (0, 0) for the others."""
    contributors = len(accepted)
    lower, upper = np.zeros(contributors), np.zeros(contributors)
    if not accepted.any():
        return lower, upper
    count, resamples = len(trained), parameters.resamples
    drawn = np.empty((resamples, contributors))
    for resample in range(resamples):
        clusters = generator.integers(count, size=count)
        controls = control[generator.integers(len(control), size=len(control))]
        masses = _masses(
            trained[clusters],
            owners[clusters],
            contributors,
            null.noise(controls, parameters.threshold_quantile),
        )
        drawn[resample] = masses[:contributors] / max(float(masses.sum()), np.finfo(np.float64).tiny)
    tail = (1 - parameters.confidence) / 2
    ends = np.quantile(drawn, [tail, 1 - tail], axis=0) * brought * PPM
    lower[accepted], upper[accepted] = ends[0][accepted], ends[1][accepted]
    return lower, upper
