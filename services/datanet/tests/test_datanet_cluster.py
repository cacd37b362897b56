"""Lightly edited copies fall into the original's cluster; other texts do not."""

from __future__ import annotations

import itertools
import random
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datanet.near_duplicates import Document, bands, cluster, write_sketches
from datanet.near_duplicates.shingles import Shingler, shingles
from identity.folding import fold
from openledger_testing.disguises import DISGUISES


def shingle(text: str) -> frozenset[str]:
    """The runs of one and two words, as the module's docstring defines them."""
    words = re.findall(r"[^\W_]+", fold(text))
    return frozenset(words) | {f"{one} {other}" for one, other in itertools.pairwise(words)}


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    return len(left & right) / len(left | right)


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


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_disguised_copy_falls_into_the_originals_cluster(disguise: str) -> None:
    documents = [
        Document("original", 0, ORIGINAL),
        Document("other", 1, OTHER),
        Document("copy", 2, DISGUISES[disguise](ORIGINAL)),
    ]
    assert cluster(documents, 0.7) == {"original": "original", "other": "other", "copy": "original"}


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


def reference(texts: list[str], threshold: float) -> list[int]:
    """The earliest member of each text's cluster, with every pair compared."""
    sets, roots = [shingle(text) for text in texts], list(range(len(texts)))
    for right in range(len(texts)):
        for left in range(right):
            if sets[left] and sets[right] and jaccard(sets[left], sets[right]) >= threshold:
                first, last = sorted((roots[left], roots[right]))
                roots = [first if root == last else root for root in roots]
    return roots


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9, 1.0])
def test_clusters_are_those_of_comparing_every_pair(threshold: float) -> None:
    generator = random.Random(threshold)
    words = [f"Word{number}" for number in range(400)]
    texts: list[str] = []
    for number in range(400):
        text = generator.choice(texts).split() if number % 2 and texts else generator.choices(words, k=30)
        for _ in range(generator.randrange(6)):
            text[generator.randrange(len(text))] = generator.choice(words)
        texts.append(" ".join(text))
    documents = [Document(f"{number:03}", number, text) for number, text in enumerate(texts)]
    found = [int(root) for root in cluster(documents, threshold).values()]
    expected = reference(texts, threshold)
    assert [int(each) for each in cluster(documents, threshold)] == list(range(400))
    # A pair is overlooked with a probability of 1 in 1000 at the threshold itself, and far more rarely above it.
    assert sum(one != other for one, other in zip(found, expected, strict=True)) <= 2


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="ascii"), max_size=60))
def test_an_ascii_text_has_the_shingles_of_the_same_text_with_an_accent(text: str) -> None:
    counts, _ = shingles(Shingler().words([text]))
    assert counts[0] == len(shingle(text))
    beyond_ascii, of_folded = shingles(Shingler().words([text + " \u00e9", text + " e"]))
    assert beyond_ascii[0] == beyond_ascii[1]
    assert np.array_equal(of_folded[: beyond_ascii[0]], of_folded[beyond_ascii[0] :])


@pytest.mark.parametrize("separator", [" ", "\u00b7", "\u2010", "_", "\u200a", "\u00ad\n", "\u2019"])
def test_a_copy_with_separated_letters_is_in_the_cluster_of_its_original(separator: str) -> None:
    original = "Magnet Goblin has used HTTP on port 1080 to fetch tools."
    copy = separator.join(original.replace(" ", ""))
    edited = copy.replace("1", "2")
    texts = ["Another report speaks of a different thing altogether.", original, copy, edited]
    found = cluster([Document(str(number), number, text) for number, text in enumerate(texts)], 0.7)
    assert (found["1"], found["2"]) == ("1", "1")
    assert found["0"] == "0"


def test_texts_without_letters_are_no_cluster() -> None:
    assert cluster([Document("a", 0, "!!!"), Document("b", 1, "???")], 0.7) == {"a": "a", "b": "b"}


def test_a_flood_of_similar_texts_takes_work_in_proportion_to_its_size() -> None:
    """Half of each text is the same boilerplate: every text is in large buckets, and none is a near-duplicate."""
    generator = random.Random(1)
    same = " ".join(f"word{number}" for number in range(30))
    made = {}
    for count in (1000, 4000):
        texts = [
            f"{same} {' '.join(f'x{generator.randrange(10**9)}' for _ in range(10))}" for _ in range(count)
        ]
        with tempfile.TemporaryDirectory() as folder:
            write_sketches(texts, Path(folder))
            made[count] = sum(len(left) for _, left, _ in bands.pairs(Path(folder), np.arange(count), 0.7))
    assert made[4000] <= 4000 * bands.WINDOW * bands.Shape.of(0.7).bands
    assert made[4000] <= 8 * made[1000]
