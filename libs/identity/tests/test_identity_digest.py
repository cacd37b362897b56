"""Canonical JSON is one form per value, and digests are checked wherever they enter."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import digest

TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


def test_form_is_sorted_compact_nfc_utf8() -> None:
    value = {"b": [1, 1.0, True, None], "a": "e\u0301", "A": {"z": -0.5}}
    assert digest.canonical_json(value) == '{"A":{"z":-0.5},"a":"é","b":[1,1.0,true,null]}'.encode()


def test_digest_of_json_is_sha256_of_its_canonical_bytes() -> None:
    assert digest.digest_json({"a": 1}) == "sha256:" + hashlib.sha256(b'{"a":1}').hexdigest()


@given(VALUES)
def test_canonical_form_is_a_fixed_point(value: Any) -> None:
    once = digest.canonical_json(value)
    assert digest.canonical_json(json.loads(once)) == once


@given(st.dictionaries(st.text("abcdef", max_size=4), st.integers(), max_size=6))
def test_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert digest.canonical_json(dict(reversed(value.items()))) == digest.canonical_json(value)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused_with_their_place(number: float) -> None:
    with pytest.raises(digest.NotCanonical) as caught:
        digest.canonical_json({"a": [0, number]})
    assert caught.value.path == "$.a[1]"


@pytest.mark.parametrize(
    "value", [{1: "a"}, {"a": b"bytes"}, {"a": {1, 2}}, {"\u00e9": 1, "e\u0301": 2}, "\ud800"]
)
def test_values_without_one_json_form_are_refused(value: Any) -> None:
    with pytest.raises(digest.NotCanonical):
        digest.canonical_json(value)


def test_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert digest.digest_file(tmp_path / "file") == digest.sha256_bytes(b"abc")


def test_tree_digest_depends_on_names_and_contents_not_on_order() -> None:
    one, other = digest.sha256_bytes(b"1"), digest.sha256_bytes(b"2")
    assert digest.tree_digest({"a": one, "b": other}) == digest.tree_digest({"b": other, "a": one})
    assert digest.tree_digest({"a": one, "b": other}) != digest.tree_digest({"a": other, "b": one})


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "a" * 64])
def test_a_text_that_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(digest.InvalidDigest):
        digest.digest_to_bytes(text)


def test_hex_and_bytes_lead_back_to_the_digest() -> None:
    name = digest.sha256_bytes(b"x")
    assert digest.digest_from_hex(digest.digest_hex(name)) == name
    assert digest.digest_from_bytes(digest.digest_to_bytes(name)) == name
