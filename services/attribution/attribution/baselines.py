"""What other ways of dividing an answer would have paid, reported beside the shares and never used for
payment.

Naive normalisation sums each record's positive influence for whoever submitted it: copies count, there is no
null, and control records would be paid for training that never happened. The lexical baseline asks BM25
instead of gradients; it beats several influence methods in published comparisons, so an attribution that does
not differ from it has to explain itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attribution.clusters import ClusterTable, Scores
from attribution.shares import PPM, largest_remainder


@dataclass(frozen=True)
class NaiveShares:
    """Adds up to 1,000,000 with `control_ppm`, or is all zero when no influence is positive."""

    ppm: tuple[int, ...]
    """By the contributor who submitted the records."""
    control_ppm: int


def naive_shares(table: ClusterTable, scores: Scores) -> NaiveShares:
    """From every row's influence [rows]."""
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
    """From every row's BM25 score [rows]: means of trained clusters, for the credited; clusters of nobody
    drop out."""
    clusters = table.trained_means(np.maximum(scores, 0.0))
    owned = table.owners >= 0
    totals = np.bincount(table.owners[owned], weights=clusters[owned], minlength=len(table.contributors))
    if totals.sum() <= 0:
        return (0,) * len(table.contributors)
    return tuple(largest_remainder(list(totals), PPM))
