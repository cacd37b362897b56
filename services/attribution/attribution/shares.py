"""From influences of clusters to contributors' shares of an answer, with what is not attributable left over.

For trained clusters with scores s, controls with scores z, tau the 95th percentile of z:

    excess of a cluster      e  = max(0, s - tau) chance excess            e0 = mean over controls of max(0, z
    - tau) mass of the answer       M  = sum over trained clusters of max(0, s) share of contributor j      =
    max(0, sum of its e - n_j e0) / M     if its test against the null says above
                                = 0                                     otherwise

The tests are one-sided permutation tests at a family-wise 5% (Holm over contributors). What no contributor
gets is unattributed. Shares are rounded to ppm by largest remainder, so that they add up exactly. Intervals
are percentile bootstrap over trained and control clusters (threshold and chance excess are estimated again in
each resample), with the outcome of the tests held fixed: they describe how large the share of an accepted
contributor is.
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
    """Below it the 95th percentile of the controls is not an estimate, and nothing is attributed."""

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
) -> Shares:
    """Shares of `contributors` contributors. trained [clusters], owners [clusters] (-1: nobody), control
    [controls]."""
    if len(control) < parameters.min_controls:
        return nothing(
            contributors,
            f"{len(control)} control clusters are too few to tell influence from "
            f"chance; at least {parameters.min_controls} are needed",
        )
    mass = float(np.maximum(trained, 0).sum())
    if mass <= 0:
        return nothing(contributors, "no training record has any positive influence on the answer")
    tau = null.threshold(control, parameters.threshold_quantile)
    chance = float(null.excess(control, tau).mean())
    p_values = corrected_p_values(trained, owners, control, contributors, parameters, generator)
    accepted = p_values <= parameters.alpha
    sizes = np.bincount(owners[owners >= 0], minlength=contributors)
    fractions = _fractions(null.excess(trained, tau), owners, sizes, chance, mass) * accepted
    lower, upper = _intervals(trained, owners, control, accepted, parameters, generator)
    *ppm, rest = largest_remainder([*fractions, max(0.0, 1.0 - float(fractions.sum()))], PPM)
    reason = "" if any(ppm) else "no contributor's records stand out above records that were never trained on"
    return Shares(tuple(ppm), rest, tuple(lower), tuple(upper), tuple(p_values), tau, chance, mass, reason)


def nothing(contributors: int, reason: str) -> Shares:
    """All unattributed, for a reason."""
    zeros = (0.0,) * contributors
    return Shares((0,) * contributors, PPM, zeros, zeros, (1.0,) * contributors, 0.0, 0.0, 0.0, reason)


def corrected_p_values(
    trained: Scores,
    owners: Owners,
    control: Scores,
    contributors: int,
    parameters: ShareParameters,
    generator: np.random.Generator,
) -> Scores:
    """Each contributor's test against the controls, Holm-corrected; 1 for one who is credited with no
    cluster."""
    p_values = np.ones(contributors)
    tested = np.unique(owners[owners >= 0])
    for owner in tested:
        p_values[owner] = null.permutation_p_value(
            trained[owners == owner],
            control,
            parameters.threshold_quantile,
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


def _fractions(
    above: Scores, owners: Owners, sizes: npt.NDArray[np.int64], chance: float, mass: float
) -> Scores:
    owned = owners >= 0
    sums = np.bincount(owners[owned], weights=above[owned], minlength=len(sizes))
    return np.asarray(np.maximum(sums - sizes * chance, 0.0) / mass, dtype=np.float64)


def _intervals(
    trained: Scores,
    owners: Owners,
    control: Scores,
    accepted: npt.NDArray[np.bool_],
    parameters: ShareParameters,
    generator: np.random.Generator,
) -> tuple[Scores, Scores]:
    """Percentile intervals of the accepted contributors' shares, in ppm; (0, 0) for the others."""
    lower, upper = np.zeros(len(accepted)), np.zeros(len(accepted))
    if not accepted.any():
        return lower, upper
    count, resamples = len(trained), parameters.resamples
    weights = generator.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)
    controls = control[generator.integers(len(control), size=(resamples, len(control)))]
    tau = np.maximum(np.quantile(controls, parameters.threshold_quantile, axis=1), 0.0)[:, None]
    chance = np.maximum(controls - tau, 0.0).mean(axis=1)
    above = np.maximum(trained[None, :] - tau, 0.0) * weights
    mass = np.maximum(weights @ np.maximum(trained, 0.0), np.finfo(np.float64).tiny)
    tail = (1 - parameters.confidence) / 2
    for owner in np.flatnonzero(accepted):
        mine = owners == owner
        shares = np.maximum(above[:, mine].sum(axis=1) - weights[:, mine].sum(axis=1) * chance, 0.0) / mass
        lower[owner], upper[owner] = np.quantile(shares, [tail, 1 - tail]) * PPM
    return lower, upper
