"""Tokens to text while they arrive: never half a character, never part of a stop string.

`TextStream` promises that its pieces, joined, are exactly what decoding all tokens at once gives, whatever
the tokens are. `StopText` adds stop strings: it holds back what might become one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Incremental decoding of one answer.

    A tokenizer's decoder is no map from tokens to pieces of text: a character may span tokens, and some
    decoders treat the first token of a text differently. So the last tokens that ended at a character's
    border are kept and decoded again with the new ones; the difference is new text. An incomplete character
    shows as one trailing replacement character, which is held back until the next token completes it or shows
    it to be really broken.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._context: list[int] = []
        """Tokens already sent in full; they only give the decoder context."""
        self._open: list[int] = []
        """Tokens since the last character's border."""
        self._sent = 0
        """Characters of context + open that were returned."""

    def push(self, token: int) -> str:
        """The text that this token settles; often empty, never an incomplete character."""
        self._open.append(token)
        text = self._decode(self._context + self._open)
        complete = not text.endswith(_REPLACEMENT)
        settled = text if complete else text[:-1]
        piece = settled[self._sent :]
        self._sent = max(self._sent, len(settled))
        if complete and piece:
            self._context, self._open = self._open, []
            self._sent = len(self._decode(self._context))
        return piece

    def finish(self) -> str:
        """What is left at the end: bytes that no token will complete any more, as replacement characters."""
        return self._decode(self._context + self._open)[self._sent :]

    def _decode(self, tokens: list[int]) -> str:
        text = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text


@dataclass(frozen=True)
class Piece:
    """Text to send now, and whether a stop string ended the answer with it."""

    text: str
    stopped: bool = False


class StopText:
    """A `TextStream` that ends before the first of several stop strings."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]) -> None:
        self._stream = TextStream(tokenizer)
        self._stop = tuple(stop)
        self._held = ""
        self._sent: list[str] = []

    @property
    def text(self) -> str:
        """Everything returned so far, joined."""
        return "".join(self._sent)

    def push(self, token: int) -> Piece:
        """The text that may be sent after this token."""
        return self._advance(self._stream.push(token))

    def finish(self) -> Piece:
        """The rest, when no token follows."""
        piece = self._advance(self._stream.finish())
        if piece.stopped:
            return piece
        held, self._held = self._held, ""
        return Piece(piece.text + self._send(held))

    def _advance(self, new: str) -> Piece:
        self._held += new
        found = [at for at in (self._held.find(stop) for stop in self._stop) if at >= 0]
        if found:
            text, self._held = self._held[: min(found)], ""
            return Piece(self._send(text), stopped=True)
        safe = len(self._held) - self._possible_stop()
        text, self._held = self._held[:safe], self._held[safe:]
        return Piece(self._send(text))

    def _possible_stop(self) -> int:
        """Length of the longest end of the held text that some stop string begins with."""
        longest = 0
        for stop in self._stop:
            for length in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:length]):
                    longest = length
                    break
        return longest

    def _send(self, text: str) -> str:
        if text:
            self._sent.append(text)
        return text
