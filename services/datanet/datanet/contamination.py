"""Detects evaluation items in records.

A record that shares a run of 13 words with an item of the promotion gate's suites is rejected: training on it would
raise the score without raising the ability. Brown et al. (2020, appendix C) use the same width. Items of 8 to 12 words
have no such run and are searched for whole. Shorter items are ordinary phrases and are not searched for.

Two views of a record are compared, both folded (`identity.folding`), over all its texts one after the other: its words, and its
letters and digits alone. So neither look-alike letters nor what stands between words or letters hides an item, and neither does
a border between two fields. In the second view a run of 60 letters is searched for, about as much as 13 words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from datanet.contribution import Rejection
from datanet.runs import Hashes, Hit, Places, RunIndex, mixed
from identity.folding import fold
from servicekit.errors import InvalidArgument

VERSION = 3
WIDTH = 13
SHORTEST = 8
LETTERS = 60
"""Letters and digits in a row that are always found."""
FEWEST_LETTERS = 55
"""Fewer in a row are never taken for an item, unless they are the whole of it."""
SHORTEST_LETTERS = 24
"""Letters of an item that is searched for whole."""

_WORD = re.compile(r"[^\W_]+")
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class EvaluationItem:
    """One item of an evaluation suite."""

    suite: str
    item: str
    text: str


class EvaluationItems:
    """The runs that a record must not contain, as 64-bit hashes."""

    def __init__(self, items: Iterable[EvaluationItem]) -> None:
        self._sources: list[tuple[str, str]] = []
        words = RunIndex(WIDTH, 1, SHORTEST)
        letters = RunIndex(FEWEST_LETTERS, LETTERS - FEWEST_LETTERS + 1, SHORTEST_LETTERS)
        for item in items:
            view = _View([fold(item.text)])
            if len(view.ends) < SHORTEST and view.letters.length < LETTERS:
                continue
            words.add(view.words, len(self._sources))
            letters.add(view.letters, len(self._sources))
            self._sources.append((item.suite, item.item))
        self._words, self._letters = words.built(), letters.built()

    def __len__(self) -> int:
        """Returns how many items are searched for."""
        return len(self._sources)

    def check(self, texts: Sequence[tuple[str, str]]) -> Rejection | None:
        """Rejects a record whose texts (field, text) share a run with an item, and names the item.

        A text with direction controls is also read without them, and backwards: a reader and a model see different texts.
        """
        fields = [field for field, _ in texts]
        found = self._find(fields, _View([fold(text) for _, text in texts]))
        if found is None and any(_DIRECTIONS.search(text) for _, text in texts):
            plain = [_DIRECTIONS.sub("", text) for _, text in texts]
            found = self._find(fields, _View(list(map(fold, plain)))) or self._find(
                fields[::-1], _View([fold(text[::-1]) for text in reversed(plain)])
            )
        return found

    def _find(self, fields: Sequence[str], view: _View) -> Rejection | None:
        hit = self._words.first(view.words)
        if hit is not None:
            return self._rejection(hit, "words", _field(fields, view.text_ends, hit))
        hit = self._letters.first(view.letters)
        if hit is not None:
            return self._rejection(hit, "letters", _field(fields, view.letter_ends, hit))
        return None

    def _rejection(self, hit: Hit, what: str, field: str) -> Rejection:
        suite, item = self._sources[hit.source]
        message = f"{hit.width} consecutive {what} are also in item {item!r} of suite {suite!r}"
        return Rejection("contamination", field, message)


class _View:
    """The words of texts in a row, and their letters and digits alone."""

    def __init__(self, folded: Sequence[str]) -> None:
        parts = [_WORD.findall(text) for text in folded]
        found = [word for part in parts for word in part]
        self.letters = _hashes("".join(found))
        self.ends: Places = np.cumsum(np.fromiter(map(len, found), np.int64, len(found)))
        """Where each word ends, in letters."""
        self.text_ends: Places = np.cumsum(np.array([len(part) for part in parts], np.int64))
        """Where each text ends, in words."""

    @property
    def words(self) -> Hashes:
        """The words."""
        starts = np.concatenate((np.zeros(1, np.int64), self.ends[:-1]))[: len(self.ends)]
        return Hashes(self.letters.between(starts, self.ends))

    @property
    def letter_ends(self) -> Places:
        """Where each text ends, in letters."""
        return np.concatenate((np.zeros(1, np.int64), self.ends))[self.text_ends]


def _hashes(text: str) -> Hashes:
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    return Hashes(mixed(codes.astype(np.uint64) + np.uint64(1)))


def _field(fields: Sequence[str], ends: Places, hit: Hit) -> str:
    """Returns the field that a run lies in; "" where it goes over a border."""
    first, last = (int(np.searchsorted(ends, at, "right")) for at in (hit.start, hit.start + hit.width - 1))
    return fields[first] if first == last else ""


def read_items(data: bytes) -> Iterator[EvaluationItem]:
    """Yields the items of an object of JSON lines `{"suite", "item" or "id", "text"}`.

    Raises InvalidArgument that names the first wrong line.
    """
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            item = value["item"] if "item" in value else value["id"]
            yield EvaluationItem(_text(value["suite"]), _text(item), _text(value["text"]))
        except (ValueError, TypeError, KeyError) as error:
            message = f"line {number} is not a JSON object with suite, item (or id) and text ({error!r})"
            raise InvalidArgument("policy.gate_items_digest", "evaluation_items", message) from None


def _text(value: object) -> str:
    """Returns a text, or a number as one. Raises TypeError for another type and ValueError for a lone surrogate, which no
    message can carry."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError(f"{type(value).__name__} where a text is expected")
    text = str(value)
    text.encode()
    return text
