"""Measures how reliable one answer's shares are, on that answer.

The agreement of independent halves of the projection shows how much of the ranking is projection noise. The cross-fitted
exceedance shows whether the threshold has its nominal rate. The control check computes the share of a contributor whose
records were never trained on. None of them shows that influence is causal: that takes retraining (linear datamodeling
scores), which is not measured yet.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from attribution import null
from attribution.clusters import ClusterTable, Scores
from attribution.influence import Influence
from attribution.shares import ShareParameters, attribute

NOTE = (
    "split-half agreement: Spearman correlation between independent halves of the gradient projection; "
    "null exceedance: cross-fitted part of the controls' noise above the threshold, nominally 5%; "
    "control check: what half of the controls would get as an invented contributor, of an answer that "
    "is entirely due to fine-tuning: gradients measure relevance, the training manifest shows what was trained on; "
    "agreement with retraining is not calibrated yet"
)


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Measured on one answer; undefined correlations are 0."""

    contributor_agreement: float
    """Between halves: correlation of contributors' mass above chance, before any test."""
    cluster_agreement: float
    """Between halves: correlation of trained clusters' influences."""
    control_count: int
    null_exceedance: float
    cluster_count: int
    control_check_ppm: int
    """Share of half of the controls as an invented contributor, tested against the other half. They are relevant, and are
    not paid only because the training manifest does not contain them."""

    def to_json(self) -> dict[str, float | int]:
        """Returns a JSON object with the same fields."""
        return asdict(self)


def measure(
    table: ClusterTable, found: Influence, parameters: ShareParameters, generator: np.random.Generator
) -> Reliability:
    """Returns the reliability of one answer's shares, from its influences."""
    control = table.control_means(found.scores)
    halves = [(table.trained_means(half), table.control_means(half)) for half in found.halves]
    enough = len(control) >= parameters.min_controls
    masses = [_masses(table, *half, parameters.threshold_quantile) for half in halves] if enough else []
    return Reliability(
        contributor_agreement=_mean_spearman(masses),
        cluster_agreement=_mean_spearman([trained for trained, _ in halves]),
        control_count=len(control),
        null_exceedance=(
            null.cross_fitted_exceedance(
                null.noise(control, parameters.threshold_quantile).deviations,
                parameters.threshold_quantile,
                generator,
            )
            if enough
            else 0.0
        ),
        cluster_count=len(table.trained_names),
        control_check_ppm=_control_check(table, found.scores, parameters, generator),
    )


def _masses(table: ClusterTable, trained: Scores, control: Scores, quantile: float) -> Scores:
    of_half = null.noise(control, quantile)
    owned = table.owners >= 0
    return np.asarray(
        np.bincount(
            table.owners[owned],
            weights=null.excess(trained, of_half.threshold)[owned] - of_half.chance_excess,
            minlength=len(table.contributors),
        )
    )


def _control_check(
    table: ClusterTable, scores: Scores, parameters: ShareParameters, generator: np.random.Generator
) -> int:
    """Returns the share of an invented contributor that owns half of the controls, in competition with the real ones."""
    control, trained = table.control_means(scores), table.trained_means(scores)
    order = generator.permutation(len(control))
    invented, rest = control[order[::2]], control[order[1::2]]
    owners = np.concatenate([table.owners, np.full(len(invented), len(table.contributors))])
    shares = attribute(
        np.concatenate([trained, invented]),
        owners,
        rest,
        contributors=len(table.contributors) + 1,
        parameters=parameters,
        generator=generator,
    )
    return shares.ppm[-1]


def _mean_spearman(replications: list[Scores]) -> float:
    """Returns the mean over pairs; constant or shorter than 3 values: left out; no pair: 0."""
    found = []
    for index, one in enumerate(replications):
        for other in replications[index + 1 :]:
            if len(one) >= 3 and np.ptp(one) > 0 and np.ptp(other) > 0:
                found.append(float(stats.spearmanr(one, other).statistic))
    return float(np.mean(found)) if found else 0.0
