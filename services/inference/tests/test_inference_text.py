"""Claims about incremental text, for any tokens and any Unicode."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.text import StopText, TextStream
from modelkit import base_model
from modelkit.weights import loading
from modelkit.weights.tiny import create_tiny
from servicekit.objects import ObjectStore


def _tokenizer() -> Any:
    with tempfile.TemporaryDirectory() as name:
        store = ObjectStore(f"{name}/objects")
        folder = base_model.materialise(create_tiny(store), store, Path(name) / "cache")
        return loading.load_tokenizer(folder)


TOKENIZER = _tokenizer()
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
EMOJI = st.text(st.sampled_from("👩‍🔬🏳️‍🌈é漢字🎉\ufffdab \n"), max_size=30)


def stream(tokens: list[int]) -> list[str]:
    text = TextStream(TOKENIZER)
    return [*(text.push(token) for token in tokens), text.finish()]


@settings(max_examples=200, deadline=None)
@given(UNICODE | EMOJI)
def test_pieces_joined_are_the_text_and_each_is_whole_characters(written: str) -> None:
    pieces = stream(TOKENIZER.encode(written, add_special_tokens=False))
    assert "".join(pieces) == written
    assert all("\ufffd" not in piece or "\ufffd" in written for piece in pieces)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=40))
def test_pieces_joined_are_what_decoding_at_once_gives_for_any_tokens(tokens: list[int]) -> None:
    assert "".join(stream(tokens)) == TOKENIZER.decode(tokens, skip_special_tokens=True)


@settings(max_examples=300, deadline=None)
@given(
    st.text("abc\u00e9🎉", max_size=30), st.lists(st.text("abc\u00e9🎉", min_size=1, max_size=4), max_size=3)
)
def test_text_ends_before_the_first_stop_string_and_never_shows_a_part_of_it(
    written: str, stops: list[str]
) -> None:
    text = StopText(TOKENIZER, stops)
    stopped = False
    for token in TOKENIZER.encode(written, add_special_tokens=False):
        stopped = text.push(token).stopped
        if stopped:
            break
    else:
        stopped = text.finish().stopped
    found = [at for at in (written.find(stop) for stop in stops) if at >= 0]
    # Of two stop strings that overlap, the one that is complete first ends the answer.
    ends = [written.find(stop) + len(stop) for stop in stops if stop in written]
    assert stopped == bool(found)
    if not found:
        assert text.text == written
    else:
        assert written.startswith(text.text)
        assert not any(stop in text.text for stop in stops)
        assert min(found) <= len(text.text) <= min(ends)


@pytest.mark.parametrize("character", ["é", "漢", "🎉"])
def test_a_character_split_over_tokens_comes_once_and_whole(character: str) -> None:
    data = character.encode()
    alphabet = {bytes([value]): token for value in range(256) if (token := _byte_token(value)) is not None}
    tokens = [alphabet[bytes([value])] for value in data]
    assert stream(tokens) == [*[""] * (len(data) - 1), character, ""]


def _byte_token(value: int) -> int | None:
    """The id of the token that is this one byte, in GPT-2's printable alphabet for bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letter = chr(value) if value in printable else chr(256 + others.index(value))
    token = TOKENIZER.convert_tokens_to_ids(letter)
    return None if token == TOKENIZER.unk_token_id else token
