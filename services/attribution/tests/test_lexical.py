"""The lexical baseline is Okapi BM25: compared with the formula, written out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribution.lexical import LexicalIndex

Documents = Sequence[Sequence[int]]

K1, B = 1.2, 0.75


def reference(documents: Documents, query: Sequence[int]) -> list[float]:
    """Robertson & Zaragoza (2009), equation 3.15, with Lucene's idf and without the constant factor k1 + 1."""
    mean_length = sum(map(len, documents)) / len(documents)

    def score(document: Sequence[int], token: int) -> float:
        count = document.count(token)
        having = sum(token in each for each in documents)
        idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
        return idf * count / (count + K1 * (1 - B + B * len(document) / mean_length)) if count else 0.0

    return [math.fsum(score(document, token) for token in sorted(set(query))) for document in documents]


def index(documents: Documents) -> LexicalIndex:
    return LexicalIndex([np.array(document, dtype=np.int32) for document in documents])


TOKENS = st.lists(st.integers(0, 9), max_size=20)


@given(st.lists(TOKENS, min_size=1, max_size=8), TOKENS)
def test_scores_are_those_of_the_formula(documents: Documents, query: Sequence[int]) -> None:
    if any(documents):
        assert index(documents).scores(query) == pytest.approx(reference(documents, query), rel=1e-12)


def test_scores_are_pinned() -> None:
    scores = index([[1, 2, 3], [1, 1, 1, 50_000], [4]]).scores([1, 50_000, 7])
    assert scores == pytest.approx([0.2032448, 0.6733524, 0.0], rel=1e-5)


def test_a_repeated_query_token_counts_once() -> None:
    documents = index([[1, 2], [2, 3]])
    assert list(documents.scores([1, 1, 1])) == list(documents.scores([1]))


def test_without_a_shared_token_every_score_is_zero() -> None:
    assert list(index([[1], [2]]).scores([3])) == [0.0, 0.0]
    assert list(index([[1], [2]]).scores([])) == [0.0, 0.0]
    assert list(index([[], []]).scores([1])) == [0.0, 0.0]
    assert list(index([]).scores([1])) == []
