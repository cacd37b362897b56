"""Plain-text tables that never break a word: names, digests and addresses stay whole, whatever the width."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

GAP = 2
"""Blanks between columns."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Returns the lines of a table of at most `width` columns; the first line is the header.

    Wide columns wrap between words. When not even that fits, each row becomes a block of `label  value` lines.
    """
    columns = list(zip(header, *rows, strict=True))
    natural = [max(map(_longest_line, cells)) for cells in columns]
    least = [max(map(_longest_word, cells)) for cells in columns]
    room = width - GAP * (len(header) - 1)
    if sum(least) > room:
        return _blocks(header, rows, width)
    widths = _shrunk(natural, least, room)
    return [line for row in (header, *rows) for line in _row(row, widths)]


def pairs(rows: Sequence[tuple[str, str]], width: int) -> list[tuple[str, str]]:
    """Returns (label, text) lines: a value that is too long for its place beside the label starts on the next line."""
    indent = max((len(label) for label, _ in rows), default=0) + GAP
    found: list[tuple[str, str]] = []
    for label, value in rows:
        if _longest_word(value) <= width - indent:
            lines = _wrapped(value, width - indent)
            found.append((label.ljust(indent), lines[0]))
            found += [(" " * indent, line) for line in lines[1:]]
        else:
            found.append((label, ""))
            found += [(" " * GAP, line) for line in _wrapped(value, width - GAP)]
    return found


def _blocks(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    lines: list[str] = []
    for row in rows:
        shown = [(label, cell) for label, cell in zip(header, row, strict=True) if cell]
        lines += [(label + text).rstrip() for label, text in pairs(shown, width)]
        lines.append("")
    return lines[:-1]


def _shrunk(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Takes from the widest column that can give, until the columns fit."""
    widths = list(natural)
    while sum(widths) > room:
        widest = max((w for w, few in zip(widths, least, strict=True) if w > few), default=0)
        index = next(
            i for i, (w, few) in enumerate(zip(widths, least, strict=True)) if w == widest and w > few
        )
        widths[index] -= 1
    return widths


def _row(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    wrapped = [_wrapped(cell, width) for cell, width in zip(cells, widths, strict=True)]
    height = max(map(len, wrapped))
    padded = [lines + [""] * (height - len(lines)) for lines in wrapped]
    return [
        (" " * GAP).join(line.ljust(width) for line, width in zip(lines, widths, strict=True)).rstrip()
        for lines in zip(*padded, strict=True)
    ]


def _wrapped(text: str, width: int) -> list[str]:
    lines: list[str] = []
    indent = "  " if "\n" in text else ""  # of what a line continues with, so that the next one is seen
    for line in text.split("\n"):
        if len(line) <= width:
            lines.append(line)  # as it is, with its indentation
            continue
        lines += textwrap.wrap(
            line, max(width, 1), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        ) or [""]
    return lines


def _longest_line(text: str) -> int:
    return max(map(len, text.split("\n")))


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)
