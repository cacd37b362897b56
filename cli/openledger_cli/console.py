"""The console that everything for people is printed on."""

from __future__ import annotations

import re
import sys
import unicodedata

from rich.console import Console
from rich.text import Text

console = Console()


def say(*parts: str | tuple[str, str]) -> None:
    """Prints text; a part may be (text, style). Long lines break between words: a name or digest stays whole."""
    shown = [printable(part) if isinstance(part, str) else (printable(part[0]), part[1]) for part in parts]
    for line in Text.assemble(*shown).split("\n", allow_blank=True):
        indent = " " * (len(line.plain) - len(line.plain.lstrip()))
        for number, piece in enumerate(line.divide(_breaks(line.plain, console.width, len(indent)))):
            piece.rstrip()
            if number:
                piece = Text(indent) + piece
            console.print(piece, highlight=False, soft_wrap=True)


def warn(text: str) -> None:
    """Prints one line about what is allowed and may not be meant, on standard error: the output stays for programs."""
    print(printable(f"openledger: warning: {text}"), file=sys.stderr)


def _breaks(line: str, width: int, indent: int) -> list[int]:
    """Returns where a line is to be broken, each time before a word."""
    found: list[int] = []
    begin = 0
    for word in re.finditer(r"\S+", line):
        if word.end() - begin > width and word.start() > max(begin, indent):
            found.append(word.start())
            begin = word.start() - indent
    return found


_UNSEEN = frozenset(("Cc", "Cf", "Co", "Cn", "Cs"))
_BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2028\u2029\u2800\u3164\uffa0\ufffc")
_BLANK_RANGES = re.compile("[\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")


def printable(text: str) -> str:
    """Returns a text in which what is not shown is written out, apart from line feeds and tabs.

    Contributed text must not command a terminal, reverse what stands beside it, or hide a difference.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character in "\n\t":
        return character
    unseen = (
        unicodedata.category(character) in _UNSEEN or character in _BLANKS or _BLANK_RANGES.match(character)
    )
    return character.encode("unicode_escape").decode() if unseen else character
