"""Okapi BM25 over token ids (Robertson & Zaragoza 2009, k1 = 1.2, b = 0.75): a lexical baseline.

idf is ln(1 + (N - n + 0.5) / (n + 0.5)), which never goes below 0. A repeated query token counts once: an
answer that repeats itself does not become more similar to anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

from attribution.clusters import Scores

_K1 = 1.2
_B = 0.75


class Bm25:
    """Weights of all documents' tokens, as a sparse matrix [documents, vocabulary]."""

    def __init__(self, documents: Sequence[npt.NDArray[np.int32]]) -> None:
        lengths = np.array([len(document) for document in documents], dtype=np.float64)
        tokens = np.concatenate([np.zeros(0, dtype=np.int32), *documents]).astype(np.int64)
        rows = np.repeat(np.arange(len(documents)), lengths.astype(np.int64))
        shape = (len(documents), int(tokens.max()) + 1 if len(tokens) else 1)
        counts = sparse.coo_matrix((np.ones(len(tokens)), (rows, tokens)), shape=shape).tocsr()
        counts.sum_duplicates()
        having = np.diff(counts.tocsc().indptr)
        idf = np.log1p((len(documents) - having + 0.5) / (having + 0.5))
        mean_length = lengths.mean() if len(documents) else 1.0
        entries = counts.tocoo()
        frequency = entries.data
        damped = frequency + _K1 * (1 - _B + _B * lengths[entries.row] / mean_length)
        weights = idf[entries.col] * frequency * (_K1 + 1) / damped
        self._weights = sparse.coo_matrix((weights, (entries.row, entries.col)), shape=shape).tocsr()

    def scores(self, query: Sequence[int]) -> Scores:
        """Of every document [documents]; tokens that no document has count nothing."""
        vocabulary = self._weights.shape[1]
        vector = np.zeros(vocabulary)
        vector[[token for token in set(query) if token < vocabulary]] = 1.0
        return np.asarray(self._weights @ vector, dtype=np.float64)
