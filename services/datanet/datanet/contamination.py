"""Records that hold the questions of the examination.

A record that shares a run of 13 words with an item of the gate's suites is refused: trained on, it would
raise the score without raising the ability. Thirteen words is the width that Brown et al. (2020, appendix C)
use. Items of 8 to 12 words have no such run; they are looked for whole. Shorter items are ordinary phrases
and are not looked for.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from datanet.contribution import Rejection
from servicekit.errors import InvalidArgument

VERSION = 1
WIDTH = 13
SHORTEST = 8

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class GateItem:
    """One item of an evaluation suite."""

    suite: str
    item: str
    text: str


class GateItems:
    """The runs of words that must not stand in a record, as 64-bit hashes of this process."""

    def __init__(self, items: Iterable[GateItem]) -> None:
        self._runs: dict[int, dict[int, int]] = defaultdict(dict)
        self._sources: list[tuple[str, str]] = []
        for item in items:
            words = _words(item.text)
            width = min(WIDTH, len(words))
            if width < SHORTEST:
                continue
            for run in _hashes(words, width):
                self._runs[width].setdefault(run, len(self._sources))
            self._sources.append((item.suite, item.item))

    def __len__(self) -> int:
        """How many items are looked for."""
        return len(self._sources)

    def check(self, field: str, text: str) -> Rejection | None:
        """Refuses a field's text that shares a run of words with an item, and names the item."""
        words = _words(text)
        for width, runs in self._runs.items():
            for run in _hashes(words, width):
                if run in runs:
                    suite, item = self._sources[runs[run]]
                    message = f"{width} words in a row also stand in item {item!r} of suite {suite!r}"
                    return Rejection("contamination", field, message)
        return None


def read_items(data: bytes) -> Iterator[GateItem]:
    """The items of an object of JSON lines `{"suite", "item" or "id", "text"}`.

    Raises InvalidArgument that names the line.
    """
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            item = value["item"] if "item" in value else value["id"]
            yield GateItem(str(value["suite"]), str(item), str(value["text"]))
        except (ValueError, TypeError, KeyError) as error:
            message = f"line {number} is not a JSON object with suite, item (or id) and text ({error!r})"
            raise InvalidArgument("policy.gate_items_digest", "gate_items", message) from None


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _hashes(words: list[str], width: int) -> Iterator[int]:
    return (hash(tuple(words[start : start + width])) for start in range(len(words) - width + 1))
