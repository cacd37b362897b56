"""What every format is read into: rows of text, and the rows that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from openledger_client.errors import InvalidArgument

MAX_ROW_BYTES = 16 << 20
"""Most bytes of one row in a text file, 16 MiB: so much memory a reader needs at most. A record may have 1 MiB."""


class InputError(InvalidArgument):
    """A file, or what it is to be read as, is wrong as a whole: no further row can be read.

    `violations[0]` has the field (`file`, `map`, `set`, ...), the rule and the reason.
    """


@dataclass(frozen=True)
class NotText:
    """A value of a file that has no text: a list, an object, bytes."""

    rule: str
    """`wrong_type` or `not_utf8`."""
    kind: str
    """As people read it, e.g. `a list`."""


Cell = str | NotText


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a file."""

    number: int
    """Of the row, from 1; rows that cannot be read count, blank lines and a CSV's header do not."""
    line: int | None
    """The line on which the row begins, from 1; None in formats without lines."""
    end: int
    """How far the file is read, in the unit of `Table.unit`, of `Table.total`."""
    cells: Mapping[str, Cell]
    """By column. What is null, or an empty cell of a CSV, is missing."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A row that is not imported, with the first rule that it breaks. The reason never repeats a value."""

    number: int
    """As in `Row`."""
    line: int | None
    end: int
    field: str
    """The field of the Datanet, or the column of the file; "" for the row as a whole."""
    rule: str
    """A rule of docs/data.md, or one of reading: `cells`, `quotes`, `row_too_long`."""
    reason: str


class Table(Protocol):
    """A file that is read row by row, in bounded memory, as often as needed."""

    format: str
    """`csv`, `jsonl`, `json` or `parquet`."""
    details: str
    """How it is read, e.g. `delimiter ";"`; "" without choices."""
    columns: tuple[str, ...]
    """The names of its columns. Of JSON those of the first `SAMPLED_ROWS` rows."""
    is_closed: bool
    """Whether every row has just these columns."""
    total: int
    """Its size in `unit`, for the progress."""
    unit: str
    """`bytes` (of the file as it is on the disk) or `rows`."""

    def rows(self, columns: frozenset[str] | None = None) -> Iterator[Row | Refusal]:
        """Yields all rows, in order; of `columns` only, where the format can leave others unread.

        Raises InputError where the file cannot be read any further.
        """
        ...


SAMPLED_ROWS = 100
"""Rows whose columns are looked at before anything is sent, in formats without a header."""


class Placed(Protocol):
    """What comes from one row of a file: a row, a refusal, a record."""

    @property
    def number(self) -> int:
        """Of the row."""
        ...

    @property
    def line(self) -> int | None:
        """On which the row begins."""
        ...


def place(row: Placed) -> str:
    """Returns `line 12`, or `row 12` in formats without lines."""
    return f"row {row.number:,}" if row.line is None else f"line {row.line:,}"


def listed(names: object) -> str:
    """Returns names, quoted and with commas; at most 20 of them, each cut at 60 characters."""
    shown = [repr(str(name)[:60]) for name in names]  # type: ignore[attr-defined]
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")
