"""A quoted text has a bound in bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from servicekit.texts import cut, listed


@given(st.text(), st.integers(3, 50))
def test_a_cut_text_fits_and_says_that_it_was_cut(text: str, most: int) -> None:
    short = cut(text, most)
    assert len(short.encode(errors="replace")) <= most
    assert short == text or (short.endswith("…") and text.startswith(short[:-1]))


@given(st.lists(st.text(max_size=300), max_size=100))
def test_a_list_of_values_fits(values: list[str]) -> None:
    assert len(listed(values).encode()) <= 510


def test_a_list_names_what_fits() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(map(str, range(30)), most=3) == "0, 1, 2, ..."
    assert listed(["x" * 100_000]) == "x" * 57 + "…"
