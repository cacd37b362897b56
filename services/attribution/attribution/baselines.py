"""Shares by other methods, reported with the shares for comparison and never used for payment.

Naive normalisation sums the positive influences of the records that each contributor submitted: copies count, there is no
null, and control records would be paid although they were not trained on. The lexical baseline uses BM25 instead of
gradients; it beats several influence methods in published comparisons, so an attribution should differ from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attribution.clusters import ClusterTable, Scores
from attribution.shares import PPM, largest_remainder


@dataclass(frozen=True)
class NaiveShares:
    """Adds up to 1,000,000 with `control_ppm`, or is all zero if no influence is positive."""

    ppm: tuple[int, ...]
    """By the contributor that submitted the records."""
    control_ppm: int


def naive_shares(table: ClusterTable, scores: Scores) -> NaiveShares:
    """Returns the shares from every row's influence [rows]."""
    positive = np.maximum(scores, 0.0)
    by_contributor = np.bincount(
        table.row_contributors, weights=positive[table.trained_rows], minlength=len(table.contributors)
    )
    control = float(positive[table.control_rows].sum())
    if by_contributor.sum() + control <= 0:
        return NaiveShares((0,) * len(table.contributors), 0)
    *ppm, control_ppm = largest_remainder([*by_contributor, control], PPM)
    return NaiveShares(tuple(ppm), control_ppm)


def lexical_shares(table: ClusterTable, scores: Scores) -> tuple[int, ...]:
    """Returns the shares from every row's BM25 score [rows]: means of trained clusters, by credited contributor; clusters
    without one are left out."""
    clusters = table.trained_means(np.maximum(scores, 0.0))
    owned = table.owners >= 0
    totals = np.bincount(table.owners[owned], weights=clusters[owned], minlength=len(table.contributors))
    if totals.sum() <= 0:
        return (0,) * len(table.contributors)
    return tuple(largest_remainder(list(totals), PPM))
