"""Lightly edited copies fall into the original's cluster; other texts do not."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datanet.cluster import Document, cluster, jaccard, shingle

ORIGINAL = "Magnet Goblin has used a scheduled task to run its loader every hour after the user logs on."
COPIES = (
    "Magnet Goblin has used a scheduled task to run its loader every hour, after the user logs on!",
    "Magnet Goblin has used a scheduled job to run its loader every hour after the user logs on.",
    "magnet goblin has used a scheduled task to run its loader every hour once the user logs on",
)
OTHER = "Emotet spreads by mail attachments whose macros fetch its second stage from a compromised site."


def test_copies_are_named_by_the_earliest_member() -> None:
    texts = (OTHER, ORIGINAL, *COPIES)
    documents = [Document(f"digest-{9 - order}", order, text) for order, text in enumerate(texts)]
    clusters = cluster(documents, 0.7)
    assert clusters == {"digest-9": "digest-9"} | {f"digest-{9 - order}": "digest-8" for order in range(1, 5)}


def test_a_higher_threshold_separates_what_a_lower_one_joins() -> None:
    documents = [Document("a", 0, ORIGINAL), Document("b", 1, COPIES[1])]
    similarity = jaccard(shingle(ORIGINAL), shingle(COPIES[1]))
    assert cluster(documents, similarity)["b"] == "a"
    assert cluster(documents, similarity + 0.01)["b"] == "b"


def test_similarity_chains_make_one_cluster() -> None:
    words = [f"word{number}" for number in range(60)]
    chain = [Document(f"d{step}", step, " ".join(words[step * 4 : step * 4 + 40])) for step in range(4)]
    assert jaccard(shingle(chain[0].text), shingle(chain[3].text)) < 0.6
    assert set(cluster(chain, 0.7).values()) == {"d0"}


@pytest.mark.parametrize(
    ("left", "right", "expected"), [("a b", "a b", 1), ("a b", "c d", 0), ("a b c", "a b d", 3 / 7)]
)
def test_jaccard_of_runs_of_one_and_two_words(left: str, right: str, expected: float) -> None:
    assert jaccard(shingle(left), shingle(right)) == pytest.approx(expected)


def test_texts_without_words_are_not_copies_of_each_other() -> None:
    assert cluster([Document("a", 0, "!!!"), Document("b", 1, "???")], 0.7) == {"a": "a", "b": "b"}


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_in_which_records_are_given_does_not_matter(shuffle: random.Random) -> None:
    texts = [ORIGINAL, *COPIES, OTHER, OTHER + " Again."]
    documents = [Document(f"d{order}", order, text) for order, text in enumerate(texts)]
    shuffled = list(documents)
    shuffle.shuffle(shuffled)
    assert cluster(shuffled, 0.7) == cluster(documents, 0.7)
