"""Okapi BM25 over token ids (Robertson & Zaragoza 2009, k1 = 1.2, b = 0.75): a lexical baseline.

idf is ln(1 + (N - n + 0.5) / (n + 0.5)), which is never below 0: Lucene's variant. A repeated query token counts once, so
an answer that repeats itself does not become more similar to anything. Scores are Lucene's without the constant factor
k1 + 1; shares are ratios of scores, so the factor has no effect on them.
"""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
import numpy as np
import numpy.typing as npt

from attribution.clusters import Scores

_K1 = 1.2
_B = 0.75


class LexicalIndex:
    """BM25 scores of all documents."""

    def __init__(self, documents: Sequence[npt.NDArray[np.int32]]) -> None:
        tokens = [document.tolist() for document in documents]
        self._positions = {token: position for position, token in enumerate(sorted(set().union(*tokens)))}
        self._document_count = len(documents)
        self._scorer = bm25s.BM25(
            k1=_K1, b=_B, method="lucene", dtype="float64", backend="numpy", csc_backend="numpy"
        )
        if self._positions:  # without any token there is no mean length
            encoded = [[self._positions[token] for token in document] for document in tokens]
            vocabulary = {str(token): position for token, position in self._positions.items()}
            self._scorer.index((encoded, vocabulary), create_empty_token=False, show_progress=False)

    def scores(self, query: Sequence[int]) -> Scores:
        """Returns the score of every document [documents]; tokens that no document contains count nothing."""
        positions = sorted(self._positions[token] for token in set(query) if token in self._positions)
        if not positions:
            return np.zeros(self._document_count)
        return np.asarray(self._scorer.get_scores_from_ids(positions), dtype=np.float64)
