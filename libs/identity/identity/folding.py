"""One folding for two questions: do these texts say the same, and are these two names one person?

Texts fold to the same form when they differ only in case, in width or other compatibility forms (superscripts, small capitals,
letters in circles), in marks on letters, in characters that are not shown (zero width, fillers, controls, private and
unassigned characters), in characters that look alike (UTS 39, confusables.txt) or in white space. The form serves comparison
only: what is stored, signed, shown and granted a right stays exactly as given, and two principals whose names fold alike share
no right.

What a character folds to stands in a table (folding.txt, written by tools/write_folding.py from Unicode's data), so that every
machine and every Python folds alike. Folding takes time in proportion to the length of the text. A fold can be wrong in one
direction: `rn` and `m`, or `1`, `l` and `I`, look alike, so two honest names may fold alike.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

VERSION = 2
"""Changes whenever the form of a text changes; stored forms are then computed again."""

# A bar in or beside a word is an l; so is a row of them.
_BAR = re.compile(r"(?<=\w)\|+|\|+(?=\w)")

_SEEN = re.compile("[!-~]")
_GREEK = re.compile("[\u0370-\u03ff\u1f00-\u1fff]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")

_RIGHT_TO_LEFT_OVERRIDE = "\u202e"
_EMBEDDINGS = frozenset("\u202a\u202b\u202d\u202e")
_ISOLATES = frozenset("\u2066\u2067\u2068")
_END_OF_EMBEDDING, _END_OF_ISOLATE = "\u202c", "\u2069"
_BIDI = re.compile("([\u202a-\u202e\u2066-\u2069\n\r\x1c-\x1e\x85\u2029])")
_DEEPEST = 125
"""Nested directions that are shown (UAX 9, max_depth). A deeper one has no effect."""

_FIRST_SYLLABLE, _SYLLABLES = 0xAC00, 11172
_LEADING, _VOWEL, _TRAILING = 0x1100, 0x1161, 0x11A7
"""Hangul syllables are decomposed by arithmetic (Unicode, 3.12)."""


def fold(text: str) -> str:
    """Returns the form in which texts are compared; see the module."""
    if text.isascii():
        return _spaced(text.encode().translate(*_ascii()).decode().replace("m", "rn"))
    plain = displayed(text)
    table = _table()
    if table.capital.search(plain) and len(_LATIN.findall(plain)) > len(_GREEK.findall(plain)):
        plain = plain.translate(table.capitals)
    return _spaced(plain.translate(table.images))


def is_blank(text: str) -> bool:
    """Returns whether a reader sees nothing."""
    return _SEEN.search(text) is None and not fold(text)


def displayed(text: str) -> str:
    """Returns the text in the order in which it is shown where it overrides its direction (U+202E), however that ends.

    Other direction controls do not change the order of Latin letters. They are left out, too.
    """
    if _RIGHT_TO_LEFT_OVERRIDE not in text:
        return text
    shown: list[str] = []
    levels: list[_Level] = []
    isolates = 0

    def close() -> None:
        nonlocal isolates
        level = levels.pop()
        isolates -= level.is_isolate
        parts = reversed(level.parts) if level.is_reversed else level.parts
        (levels[-1].parts if levels else shown).append("".join(parts))

    for piece in _BIDI.split(text):
        if piece in _EMBEDDINGS or piece in _ISOLATES:
            if len(levels) < _DEEPEST:
                levels.append(_Level(piece == _RIGHT_TO_LEFT_OVERRIDE, piece in _ISOLATES, []))
                isolates += levels[-1].is_isolate
        elif piece == _END_OF_EMBEDDING:
            if levels and not levels[-1].is_isolate:
                close()
        elif piece == _END_OF_ISOLATE:
            if isolates:
                while not levels[-1].is_isolate:
                    close()
                close()
        elif len(piece) == 1 and _BIDI.match(piece):  # the end of a paragraph ends all
            while levels:
                close()
            shown.append(piece)
        elif levels:
            levels[-1].parts.append(piece[::-1] if levels[-1].is_reversed else piece)
        else:
            shown.append(piece)
    while levels:
        close()
    return "".join(shown)


@dataclass(frozen=True)
class _Level:
    """A direction that has begun and not ended."""

    is_reversed: bool
    is_isolate: bool
    parts: list[str]


def letters(folded: str) -> str:
    """Returns the letters and digits of a folded text: what is left when every separator is taken away."""
    return _SEPARATORS.sub("", folded)


_SEPARATORS = re.compile(r"[\W_]+")


def name_forms(name: str) -> frozenset[str]:
    """Returns the forms in which a name is compared: letters and digits of `fold`'s, and of that of its capitals as they look.

    A name is short: in a text, most letters decide whether a Greek capital stands for a Greek letter or for the Latin one that it
    looks like. A name has too few. Separators do not tell people apart: `a-lice`, `al.ice` and `alice.` count as one. So do
    `bob.smith@x` and `bobsmith@x`, who may be two: that only asks for another approver. A name of signs alone keeps them.
    """
    table, plain = _table(), displayed(name)
    forms = (
        fold(name),
        *(_spaced(each.translate(table.images)) for each in (plain, plain.translate(table.capitals))),
    )
    return frozenset(letters(form) or form for form in forms)


def name_form(name: str) -> str:
    """Returns the one form of a name by which it is stored and found: one of `name_forms`."""
    form = fold(name)
    return letters(form) or form


def same_person(one: str, other: str) -> bool:
    """Returns whether two principals must count as one person: one of the forms of their names is the same.

    Rights are never decided by it: they belong to the exact name.
    """
    return one == other or not name_forms(one).isdisjoint(name_forms(other))


def distinct_people(names: Iterable[str]) -> list[str]:
    """Returns the names without those that count as a person named before."""
    people: list[str] = []
    for name in names:
        if not any(same_person(name, other) for other in people):
            people.append(name)
    return people


def _spaced(text: str) -> str:
    # After the look-alikes: a bar may stand beside a sign that folds to a letter.
    if "|" in text:
        text = _BAR.sub(lambda bars: "l" * len(bars[0]), text)
    return " ".join(text.split())


class _Images(dict[int, str]):
    """Maps a code point to its folded form; fills itself with what the table does not list."""

    def __init__(self, listed: dict[int, str], dropped: list[tuple[int, int]]) -> None:
        super().__init__(listed)
        self._firsts = [first for first, _ in dropped]
        self._lasts = [last for _, last in dropped]

    def __missing__(self, code: int) -> str:
        at = bisect_right(self._firsts, code) - 1
        if at >= 0 and code <= self._lasts[at]:
            image = ""
        elif _FIRST_SYLLABLE <= code < _FIRST_SYLLABLE + _SYLLABLES:
            rest, trailing = divmod(code - _FIRST_SYLLABLE, 28)
            leading, vowel = divmod(rest, 21)
            image = self[_LEADING + leading] + self[_VOWEL + vowel]
            image += self[_TRAILING + trailing] if trailing else ""
        else:
            image = chr(code)
        self[code] = image
        return image


@dataclass(frozen=True)
class _Table:
    """What characters fold to."""

    images: _Images
    capitals: dict[int, str]
    """Capitals that look like another Latin letter than their small forms do, such as Greek eta: H, and in small n."""
    capital: re.Pattern[str]


@cache
def _table() -> _Table:
    images: dict[int, str] = {}
    capitals: dict[int, str] = {}
    dropped: list[tuple[int, int]] = []
    for line in files("identity").joinpath("folding.txt").read_text("utf-8").splitlines():
        if line[0] == "#":
            continue
        first, *rest = line.lstrip("-^").split()
        if line[0] == "-":
            dropped.append((int(first, 16), int(rest[0], 16)))
        else:
            (capitals if line[0] == "^" else images)[int(first, 16)] = "".join(
                chr(int(each, 16)) for each in rest
            )
    return _Table(_Images(images, dropped), capitals, re.compile(f"[{''.join(map(chr, capitals))}]"))


@cache
def _ascii() -> tuple[bytes, bytes]:
    """The images of ASCII characters, and those that are dropped. An m is left: its image has two letters."""
    images = [_table().images[code] for code in range(0x80)]
    table = bytes(ord(image) if len(image) == 1 else ord("m") for image in images)
    return table + bytes(range(0x80, 0x100)), bytes(code for code, image in enumerate(images) if not image)
