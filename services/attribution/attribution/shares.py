"""From influences of clusters to contributors' shares of an answer, with what is not attributable left over.

Two questions, in this order. How much of the answer did fine-tuning bring? And whose records were relevant to it?

    brought          b  = max(0, 1 - p_base(answer) / p_tuned(answer))   the probability of necessity of the adapter
    excess           e  = max(0, s - tau) of a trained cluster, tau and the chance excess e0 from the null (null.py)
    mass             m_j = max(0, sum of contributor j's e - n_j e0)
    share of j          = b m_j / sum of all m     if its test against the null says above, 0 otherwise

b is Tian and Pearl's (2000) bound on the probability of necessity, exact here up to monotonicity, because the same
prompt is answered with and without the adapter: what the base would have said anyway is owed to nobody's records. The
tests are one-sided at a family-wise 5% (Holm over contributors). What no contributor gets is unattributed. Shares are
rounded to ppm by largest remainder, so that they add up exactly. Intervals are percentile bootstrap over trained and
control clusters (the null is estimated again in each resample), with b and the outcome of the tests held fixed: they
describe how large the share of an accepted contributor is.
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

NOBODY = "no contributor's records stand out above the noise that control records show"
"""Why nothing is attributable when fine-tuning did bring the answer."""

Owners = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ShareParameters:
    """What is recorded of the method."""

    threshold_quantile: float = 0.95
    alpha: float = 0.05
    permutations: int = 1999
    resamples: int = 1000
    confidence: float = 0.95
    min_controls: int = 20
    """Below it the controls are too few to show the noise, and nothing is attributed."""

    def to_json(self) -> dict[str, float | int]:
        """A JSON object with the same fields."""
        return asdict(self)


@dataclass(frozen=True)
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
    """Why nothing is attributable; "" when something is."""


def attribute(
    trained: Scores,
    owners: Owners,
    control: Scores,
    contributors: int,
    parameters: ShareParameters,
    generator: np.random.Generator,
    brought: float = 1.0,
) -> Shares:
    """Shares of `contributors` contributors. trained [clusters], owners [clusters] (-1: nobody), control
    [controls]; `brought` in [0, 1] is the part of the answer that fine-tuning brought."""
    if len(control) < parameters.min_controls:
        return nothing(
            contributors,
            f"{len(control)} control clusters are too few to tell influence from "
            f"chance; at least {parameters.min_controls} are needed",
        )
    if brought <= 0:
        return nothing(
            contributors, "the base model gives this answer at least as much probability by itself"
        )
    null_of_answer = null.noise(control, parameters.threshold_quantile)
    masses = _masses(trained, owners, contributors, null_of_answer)
    total = float(masses.sum())
    if total <= 0:
        return nothing(contributors, NOBODY)
    p_values = corrected_p_values(trained, owners, null_of_answer, contributors, parameters, generator)
    accepted = p_values <= parameters.alpha
    fractions = brought * masses[:contributors] / total * accepted
    lower, upper = _intervals(trained, owners, control, accepted, brought, parameters, generator)
    *ppm, rest = largest_remainder([*fractions, max(0.0, 1.0 - float(fractions.sum()))], PPM)
    return Shares(
        tuple(ppm),
        rest,
        tuple(lower),
        tuple(upper),
        tuple(p_values),
        null_of_answer.threshold,
        null_of_answer.chance_excess,
        total,
        "" if any(ppm) else NOBODY,
    )


def nothing(contributors: int, reason: str) -> Shares:
    """All unattributed, for a reason."""
    zeros = (0.0,) * contributors
    return Shares((0,) * contributors, PPM, zeros, zeros, (1.0,) * contributors, 0.0, 0.0, 0.0, reason)


def corrected_p_values(
    trained: Scores,
    owners: Owners,
    null_of_answer: null.Noise,
    contributors: int,
    parameters: ShareParameters,
    generator: np.random.Generator,
) -> Scores:
    """Each contributor's test against the null, Holm-corrected; 1 for one who is credited with no cluster."""
    p_values = np.ones(contributors)
    tested = np.unique(owners[owners >= 0])
    for owner in tested:
        above = trained[owners == owner] - null_of_answer.center
        if (above > 0).any():
            p_values[owner] = null.permutation_p_value(
                above[above > 0],
                null_of_answer.deviations,
                0.0,  # the statistic is the sum of all deviations: power for many slight and for few strong ones
                parameters.permutations,
                generator,
            )
    p_values[tested] = null.holm(p_values[tested])
    return p_values


def largest_remainder(weights: Sequence[float], total: int) -> list[int]:
    """`total` in whole parts as near to the non-negative weights as can be; ties go to the earlier. Exact."""
    exact = [Fraction(float(weight)) for weight in weights]
    whole = sum(exact)
    if whole <= 0 or min(exact) < 0:
        raise ValueError("weights must not be negative, and one of them must be above 0")
    quotas = [weight * total / whole for weight in exact]
    parts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(parts)), key=lambda place: (parts[place] - quotas[place], place))
    for place in by_remainder[: total - sum(parts)]:
        parts[place] += 1
    return parts


def _masses(trained: Scores, owners: Owners, contributors: int, null_of_answer: null.Noise) -> Scores:
    """[contributors + 1]: each contributor's mass above chance, and last that of clusters that nobody owns."""
    places = np.where(owners >= 0, owners, contributors)
    above = null.excess(trained, null_of_answer.threshold) - null_of_answer.chance_excess
    return np.maximum(np.bincount(places, weights=above, minlength=contributors + 1), 0.0)


def _intervals(
    trained: Scores,
    owners: Owners,
    control: Scores,
    accepted: npt.NDArray[np.bool_],
    brought: float,
    parameters: ShareParameters,
    generator: np.random.Generator,
) -> tuple[Scores, Scores]:
    """Percentile intervals of the accepted contributors' shares, in ppm; (0, 0) for the others."""
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
