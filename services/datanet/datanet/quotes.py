"""Whether a reason repeats a record: the record's text is deleted, and reasons stay."""

from __future__ import annotations

import json

from identity.folding import fold, letters

LONGEST = 24
"""Letters and digits in a row, about five words, that a reason must not share with a value of the record."""
SHORTEST = 12
"""A value of fewer is a word, such as a label; one of at least as many must not stand in a reason whole."""


def quotes(reason: str, content: bytes) -> bool:
    """Returns whether a reason repeats a part of a record's canonical JSON, whatever separates its letters."""
    said = letters(fold(reason))
    runs = {said[start : start + LONGEST] for start in range(len(said) - LONGEST + 1)}
    return any(_repeats(said, runs, letters(fold(value))) for value in _values(content))


def _repeats(said: str, runs: set[str], value: str) -> bool:
    if len(value) < LONGEST:
        return len(value) >= SHORTEST and value in said
    return any(value[start : start + LONGEST] in runs for start in range(len(value) - LONGEST + 1))


def _values(content: bytes) -> list[str]:
    try:
        return [str(value) for value in json.loads(content).values()]
    except (ValueError, AttributeError):  # it changed on the disk
        return [content.decode(errors="replace")]
