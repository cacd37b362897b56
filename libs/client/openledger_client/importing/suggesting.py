"""Infers a Datanet's definition from a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from openledger_client.importing.column import Column
from openledger_client.importing.rows import InputError, NotText, Refusal, Table, listed

READ_ROWS = 100_000
"""Rows that are read unless more are asked for."""
MAX_FIELDS = 32
"""Most fields of a schema."""
NO_LICENCE = "NOASSERTION"
"""SPDX's word for a licence that is not stated."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A definition, and what it was derived from."""

    columns: Sequence[Column]
    """Those that become fields."""
    left_out: Sequence[str]
    """Columns without text, and those beyond the 32nd field."""
    rows: int
    """Rows that were read."""
    is_whole: bool
    """Whether these are all rows of the file."""
    unreadable: int
    """Rows that could not be read."""
    prompt: Column
    completion: Column
    name: str
    """Of the file."""
    licence: str


def suggest(table: Table, name: str, *, licence: str = "", most_rows: int = READ_ROWS) -> Suggestion:
    """Returns a definition for a file.

    Args:
        table: the file.
        name: the file's name.
        licence: which contributors consent to; "" means `NO_LICENCE`.
        most_rows: rows to read; 0 reads all.

    Raises:
        InputError: the file has fewer than two columns with text, or cannot be read.
    """
    columns: dict[str, Column] = {}
    without_text: dict[str, None] = {}
    rows = unreadable = 0
    reader = table.rows()
    for row in islice(reader, most_rows or None):
        rows += 1
        if isinstance(row, Refusal):
            unreadable += 1
            continue
        for name_, cell in row.cells.items():
            if isinstance(cell, NotText):
                without_text[name_] = None
            elif name_ in columns or len(columns) < 10 * MAX_FIELDS:
                columns.setdefault(name_, Column(name=name_)).add(cell)
    order = [each for each in table.columns if each in columns]
    order += [each for each in columns if each not in order]
    kept = [columns[each] for each in order if each not in without_text][:MAX_FIELDS]
    if len(kept) < 2:
        message = (
            f"a prompt and a completion need two columns with text; the file has {listed(table.columns)}"
        )
        raise InputError.of("file", "columns", message)
    _name_fields(kept)
    prompt, completion = _templates(kept)
    fields = {each.name for each in kept}
    return Suggestion(
        columns=kept,
        left_out=[
            each for each in dict.fromkeys([*table.columns, *columns, *without_text]) if each not in fields
        ],
        rows=rows,
        is_whole=next(reader, None) is None,
        unreadable=unreadable,
        prompt=prompt,
        completion=completion,
        name=name,
        licence=licence or NO_LICENCE,
    )


def _templates(columns: Sequence[Column]) -> tuple[Column, Column]:
    """Returns the columns of prompt and completion: the longest texts, and a closed list or else the last other column."""
    prompt = max(columns, key=lambda each: each.characters)
    others = [each for each in columns if each is not prompt]
    fullest = max(each.filled for each in others)
    full = [each for each in others if each.filled == fullest]
    return prompt, next((each for each in full if each.labels), full[-1])


def _name_fields(columns: Sequence[Column]) -> None:
    """Gives each column a name that a schema takes, all different."""
    taken = {each.name for each in columns if _NAME.fullmatch(each.name)}
    for number, column in enumerate(columns, 1):
        if column.name in taken:
            column.field = column.name
            continue
        slug = re.sub(r"[^a-z0-9]+", "_", column.name.lower()).strip("_")[:50]
        stem = slug if _NAME.fullmatch(slug) else f"field_{slug or number}"
        names = (stem if count == 1 else f"{stem}_{count}" for count in range(1, MAX_FIELDS + 2))
        column.field = next(each for each in names if each not in taken)
        taken.add(column.field)
