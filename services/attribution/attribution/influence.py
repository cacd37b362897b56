"""Computes each record's influence on an answer: the cosine of their gradients in the preconditioned metric.

For the answer's gradient q and a record's g, s = q^T H^-1 g / sqrt(q^T H^-1 q * g^T H^-1 g), in [-1, 1]: how much a step
on the record would have changed the answer's loss, normalised by the length of both gradients. Without normalisation,
records with large gradients (long, unusual, badly fitted) are influential for everything (Barshan et al., "RelatIF",
arXiv 2003.11630).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attribution.clusters import Scores
from attribution.preconditioner import BlockPreconditioner
from attribution.projection import FloatArray


@dataclass(frozen=True)
class Influence:
    """Influence of all rows on one answer."""

    scores: Scores
    """[rows], from both halves of the projection together."""
    halves: Scores
    """[halves, rows], from each half alone."""


def influence(
    query: FloatArray,
    gradients: FloatArray,
    squared_norms: Scores,
    preconditioner: BlockPreconditioner,
    rows_at_once: int = 1024,
) -> Influence:
    """Returns the influence of every row of `gradients` [rows, size] on `query` [size]; `squared_norms` are the rows'
    [halves, rows].

    The influence is 0 if the record or the query has no gradient.
    """
    weighted = preconditioner.apply(query[None, :])[0]
    spans = preconditioner.layout.half_spans
    query_norms = np.array([max(0.0, float(query[span] @ weighted[span])) for span in spans])
    products = np.empty((len(spans), len(gradients)))
    for start in range(0, len(gradients), rows_at_once):
        part = np.asarray(gradients[start : start + rows_at_once])
        for half, span in enumerate(spans):
            products[half, start : start + len(part)] = part[:, span] @ weighted[span]
    return Influence(
        _cosine(products.sum(axis=0), squared_norms.sum(axis=0) * query_norms.sum()),
        _cosine(products, squared_norms * query_norms[:, None]),
    )


def _cosine(products: Scores, squared_norms: Scores) -> Scores:
    lengths = np.sqrt(squared_norms)
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return np.clip(cosines, -1.0, 1.0)
