"""Spans are the maximal word-for-word matches, as a search through all of them finds."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribution.spans import SuffixIndex

TEXTS = st.lists(st.sampled_from(["a", "b", "cc", "é,", "ab", "名"]), max_size=12).map(" ".join)


def occurrences(document: str, words: list[str]) -> int:
    there = re.findall(r"\w+", document)
    return sum(there[place : place + len(words)] == words for place in range(len(there) - len(words) + 1))


Spans = list[tuple[int, int, int, tuple[int, ...]]]


def brute_force(documents: list[str], text: str, min_words: int) -> Spans:
    words = list(re.finditer(r"\w+", text))
    spans = []
    for first in range(len(words)):
        for stop in range(first + min_words, len(words) + 1):
            sought = [word.group() for word in words[first:stop]]
            counts = [occurrences(document, sought) for document in documents]
            if any(counts):
                spans.append((first, stop, sum(counts), tuple(np.flatnonzero(counts))))
    maximal = [
        span
        for span in spans
        if not any(other != span and other[0] <= span[0] and span[1] <= other[1] for other in spans)
    ]
    return [
        (words[first].start(), words[stop - 1].end(), count, holders)
        for first, stop, count, holders in maximal
    ]


@given(st.lists(TEXTS, max_size=5), TEXTS, st.integers(1, 3))
def test_spans_are_those_of_brute_force(documents: list[str], text: str, min_words: int) -> None:
    found = SuffixIndex.of(documents).matches(text, min_words, max_documents=100)
    assert [(span.start, span.end, span.occurrence_count, span.documents) for span in found] == brute_force(
        documents, text, min_words
    )
    assert all(span.text == text[span.start : span.end] for span in found)


@given(st.lists(st.text(max_size=20), max_size=4), st.text(max_size=8))
def test_any_text_can_be_indexed_and_asked_for(documents: list[str], text: str) -> None:
    found = SuffixIndex.of([*documents, text]).matches(text, 1, 10)
    words = re.findall(r"\w+", text)
    assert [span.occurrence_count >= 1 for span in found] == [True] * bool(words)


def test_no_span_crosses_two_records() -> None:
    index = SuffixIndex.of(["one two", "three four"])
    assert index.matches("one two three four", 3, 10) == []
    assert [span.text for span in index.matches("one two three four", 2, 10)] == ["one two", "three four"]


def test_half_a_word_is_no_match() -> None:
    index = SuffixIndex.of(["the actor used spearphishing links"])
    assert [span.text for span in index.matches("the actor used spear", 2, 10)] == ["the actor used"]


def test_the_list_of_records_is_capped_and_the_count_is_not() -> None:
    index = SuffixIndex.of(["red fox"] * 5)
    (span,) = index.matches("a red fox", 2, max_documents=2)
    assert (span.occurrence_count, span.documents) == (5, (0, 1))


def test_a_span_needs_a_word() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SuffixIndex.of([]).matches("x", 0, 1)


def test_punctuation_between_words_does_not_count_and_case_does() -> None:
    index = SuffixIndex.of(["used PowerShell, then WMI."])
    assert [span.text for span in index.matches("used PowerShell then - WMI", 2, 10)] == [
        "used PowerShell then - WMI"
    ]
    assert index.matches("Used powershell", 1, 10) == []
