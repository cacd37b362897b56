"""CSV by RFC 4180: quoted cells may contain delimiters, line feeds and doubled quotes; the first row names the columns.

Not by the `csv` module: its limit of a cell's size is one of the whole process, and after an error in a cell of several lines it
would continue within that cell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from openledger_client.importing.lines import Line, NotUtf8, decoded, lines
from openledger_client.importing.rows import MAX_ROW_BYTES, InputError, Refusal, Row, listed
from openledger_client.importing.source import OpenSource, Source

DELIMITERS = (",", ";", "\t", "|")
_QUOTE = '"'
_SNIFFED_RECORDS = 50


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written."""

    delimiter: str
    terminator: bytes = b"\n"


class MalformedRecord(ValueError):
    """A record's quotes are wrong. The message says where."""


class CsvTable:
    """A CSV file. See `Table`."""

    format = "csv"
    is_closed = True
    unit = "bytes"

    def __init__(self, path: Path, *, encoding: str = "utf-8", delimiter: str = "") -> None:
        """Derives the dialect from the first 64 KiB and reads the header. Raises InputError."""
        self._path = path
        self._source = Source(path, encoding)
        self.total = self._source.size
        sample, whole = self._source.sample()
        self.dialect = sniff(sample, whole=whole, delimiter=delimiter)
        self.details = f"delimiter {self.dialect.delimiter!r}"
        self.columns = self._header()

    def rows(self, columns: frozenset[str] | None = None) -> Iterator[Row | Refusal]:
        """See `Table`."""
        with self._source.open() as source:
            records = _records(source, self.dialect)
            next(records, None)  # the header
            for number, record in enumerate(records, 1):
                yield self._row(number, record)

    def _row(self, number: int, record: _Record) -> Row | Refusal:
        try:
            cells = parse_record(record.text(), self.dialect.delimiter)
        except NotUtf8 as error:
            return self._refusal(number, record, "not_utf8", str(error))
        except MalformedRecord as error:
            return self._refusal(number, record, "quotes", f"{error}{record.lines_refused}")
        except OverflowError:
            message = f"the row has more than {MAX_ROW_BYTES:,} bytes{record.lines_refused}"
            return self._refusal(number, record, "row_too_long", message)
        if len(cells) != len(self.columns):
            message = f"the row has {len(cells)} cells, the header {len(self.columns)}"
            return self._refusal(number, record, "cells", message)
        found = {column: cell for column, cell in zip(self.columns, cells, strict=True) if cell}
        return Row(number=number, line=record.line, end=record.end, cells=found)

    def _refusal(self, number: int, record: _Record, rule: str, reason: str) -> Refusal:
        return Refusal(number=number, line=record.line, end=record.end, field="", rule=rule, reason=reason)

    def _header(self) -> tuple[str, ...]:
        with self._source.open() as source:
            record = next(_records(source, self.dialect), None)
        if record is None:
            raise InputError.of(
                "file", "empty", f"{self._path}: the file is empty; its first row must name the columns"
            )
        try:
            cells = parse_record(record.text(), self.dialect.delimiter)
        except (NotUtf8, MalformedRecord, OverflowError) as error:
            message = f"{self._path}: line {record.line:,}, the header: {error or 'is too long'}"
            raise InputError.of("file", "header", message) from None
        names = tuple(cell.strip() or f"column_{number}" for number, cell in enumerate(cells, 1))
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            message = f"{self._path}: line {record.line:,}, the header names {listed(twice)} twice"
            raise InputError.of("file", "header", message)
        return names


@dataclass(kw_only=True)
class _Record:
    """The lines of one record."""

    line: int
    parts: list[Line] = field(default_factory=list)
    size: int = 0
    last_line: int = 0
    end: int = 0

    def add(self, part: Line) -> None:
        self.size += len(part.data)
        self.last_line, self.end = part.number, part.end
        if self.size > MAX_ROW_BYTES or not part.is_last:
            self.size = max(self.size, MAX_ROW_BYTES + 1)
            self.parts.clear()
        else:
            self.parts.append(part)

    def text(self) -> str:
        """Returns the record's text. Raises NotUtf8, and OverflowError for more than `MAX_ROW_BYTES`."""
        if self.size > MAX_ROW_BYTES:
            raise OverflowError
        return "\n".join(map(decoded, self.parts)).removesuffix("\r")

    @property
    def lines_refused(self) -> str:
        more = self.last_line > self.line
        return f"; lines {self.line:,} to {self.last_line:,} are not imported" if more else ""


def _records(source: OpenSource, dialect: Dialect) -> Iterator[_Record]:
    """Yields records: lines whose quotes are closed. Blank lines between records are left out."""
    quotes = _Quotes(dialect.delimiter.encode())
    record: _Record | None = None
    for line in lines(source, dialect.terminator):
        if record is None:
            if line.is_last and not line.data.strip(b"\r"):
                continue
            record = _Record(line=line.number)
        record.add(line)
        quotes.scan(line.data)
        if line.is_last and not quotes.are_open_at_line_end():
            yield record
            record = None
    if record is not None:
        yield record


class _Quotes:
    """Whether a quoted cell is open, piece by piece of the text."""

    def __init__(self, delimiter: bytes) -> None:
        self._delimiter = delimiter
        self._begin()

    def _begin(self) -> None:
        self._is_quoted = False
        self._at_cell_start = True
        self._quote_was_last = False
        """In a quoted cell: the quote may end the cell, or be the first of a doubled one."""

    def are_open_at_line_end(self) -> bool:
        """Returns whether the record continues on the next line; otherwise the next record begins."""
        if self._is_quoted and not self._quote_was_last:
            return True
        self._begin()
        return False

    def scan(self, piece: bytes) -> None:
        """Reads the next piece of a line."""
        at = self._after_last_quote(piece) if self._quote_was_last and piece else 0
        if not self._is_quoted and b'"' not in piece:
            self._at_cell_start = piece.endswith(self._delimiter) or (self._at_cell_start and not piece)
            return
        while at < len(piece):
            at = self._in_quotes(piece, at) if self._is_quoted else self._outside(piece, at)

    def _after_last_quote(self, piece: bytes) -> int:
        self._quote_was_last = False
        if piece.startswith(b'"'):
            return 1
        self._is_quoted = self._at_cell_start = False
        return 0

    def _in_quotes(self, piece: bytes, at: int) -> int:
        end = piece.find(b'"', at)
        if end < 0:
            return len(piece)
        if end + 1 == len(piece):
            self._quote_was_last = True
        elif piece[end + 1 : end + 2] == b'"':
            return end + 2
        else:
            self._is_quoted = self._at_cell_start = False
        return end + 1

    def _outside(self, piece: bytes, at: int) -> int:
        if self._at_cell_start and piece[at : at + 1] == b'"':
            self._is_quoted, self._at_cell_start = True, False
            return at + 1
        end = piece.find(self._delimiter, at)
        self._at_cell_start = end >= 0
        return len(piece) if end < 0 else end + 1


def parse_record(text: str, delimiter: str) -> list[str]:
    """Returns the cells of one record. Raises MalformedRecord if a quoted cell does not end before a delimiter."""
    if _QUOTE not in text:
        return text.split(delimiter)
    cells: list[str] = []
    at = 0
    while True:
        if text.startswith(_QUOTE, at):
            cell, at = _quoted_cell(text, at + 1, len(cells) + 1)
            if at < len(text) and text[at] != delimiter:
                raise MalformedRecord(
                    f"cell {len(cells) + 1}: text follows the closing quote; a quote in a quoted cell is written twice"
                )
        else:
            end = text.find(delimiter, at)
            end = len(text) if end < 0 else end
            cell, at = text[at:end], end
        cells.append(cell)
        if at == len(text):
            return cells
        at += 1


def _quoted_cell(text: str, at: int, number: int) -> tuple[str, int]:
    """Returns the cell whose text begins at `at`, and where its closing quote was passed."""
    parts: list[str] = []
    while True:
        end = text.find(_QUOTE, at)
        if end < 0:
            raise MalformedRecord(f"cell {number}: the quote that opens it is not closed")
        parts.append(text[at:end])
        if not text.startswith(_QUOTE, end + 1):
            return "".join(parts), end + 1
        parts.append(_QUOTE)
        at = end + 2


def sniff(sample: bytes, *, whole: bool = True, delimiter: str = "") -> Dialect:
    """Returns the dialect of a sample of UTF-8: the delimiter with which most rows have as many cells as the header.

    Args:
        sample: the file's first bytes.
        whole: whether that is the whole file; otherwise its last line is not looked at.
        delimiter: the delimiter, if it is known.

    Raises:
        InputError: a given delimiter is not one of `DELIMITERS`.
    """
    terminator = b"\r" if b"\n" not in sample and b"\r" in sample else b"\n"
    if delimiter:
        if delimiter not in DELIMITERS:
            message = f"{delimiter!r} is not one of {listed(DELIMITERS)}"
            raise InputError.of("delimiter", "supported", message)
        return Dialect(delimiter, terminator)
    if not whole:
        sample = sample[: sample.rfind(terminator) + 1] or sample
    scores = {each: _regularity(sample, Dialect(each, terminator)) for each in DELIMITERS}
    best = max(DELIMITERS, key=lambda each: scores[each])  # the first of equal ones
    return Dialect(best, terminator)


def _regularity(sample: bytes, dialect: Dialect) -> tuple[float, int]:
    """Returns the share of rows with as many cells as the header, and how many these are; (0, 0) for one column."""
    counts: list[int] = []
    quotes, parts = _Quotes(dialect.delimiter.encode()), list[bytes]()
    for line in sample.split(dialect.terminator):
        parts.append(line)
        quotes.scan(line)
        if quotes.are_open_at_line_end():
            continue
        text = b"\n".join(parts).decode(errors="replace").removesuffix("\r")
        parts = []
        if text:
            counts.append(_cells(text, dialect.delimiter))
        if len(counts) > _SNIFFED_RECORDS:
            break
    if not counts or counts[0] < 2:
        return 0.0, 0
    return counts.count(counts[0]) / len(counts), counts[0]


def _cells(text: str, delimiter: str) -> int:
    try:
        return len(parse_record(text, delimiter))
    except MalformedRecord:
        return 0
