"""JSON lines, and one JSON array of objects.

A number becomes the text by which the file writes it (`1.50` stays `1.50`), a boolean `true` or `false`; null is a missing value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openledger_client.importing.lines import Line, NotUtf8, decoded, lines
from openledger_client.importing.rows import (
    MAX_ROW_BYTES,
    SAMPLED_ROWS,
    Cell,
    InputError,
    NotText,
    Refusal,
    Row,
)
from openledger_client.importing.source import OpenSource, Source

_MAX_DEPTH = 64
_STRINGS = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BRACKETS = re.compile(r"[\[\]{}]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_KINDS: dict[type, str] = {list: "a list", dict: "an object"}


class Refused(ValueError):
    """A text is not one flat JSON object."""

    def __init__(self, rule: str, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.rule = rule
        self.reason = reason
        self.field = field


@dataclass(frozen=True, kw_only=True)
class _Item:
    """The bytes of one row."""

    line: Line
    """The line on which it begins, and how far the file is read."""
    is_too_long: bool


class _JsonTable:
    """What both forms share. See `Table`."""

    format = ""
    details = ""
    is_closed = False
    unit = "bytes"

    def __init__(self, path: Path, *, encoding: str = "utf-8") -> None:
        """Reads the first rows. Raises InputError."""
        self._path = path
        self._source = Source(path, encoding)
        self.total = self._source.size
        self._check()
        self.columns = self._sampled_columns()

    def _check(self) -> None:
        """Raises InputError if the file has another form."""

    def _items(self, source: OpenSource) -> Iterator[_Item]:
        raise NotImplementedError

    def rows(self, columns: frozenset[str] | None = None) -> Iterator[Row | Refusal]:
        """See `Table`."""
        with self._source.open() as source:
            for number, item in enumerate(self._items(source), 1):
                yield _row(number, item)

    def _sampled_columns(self) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for row, _ in zip(self.rows(), range(SAMPLED_ROWS), strict=False):
            if isinstance(row, Row):
                found.update(dict.fromkeys(row.cells))
        return tuple(found)


class JsonLinesTable(_JsonTable):
    """One JSON object a line."""

    format = "jsonl"

    def _check(self) -> None:
        sample, whole = self._source.sample()
        text = sample.lstrip()
        if text.startswith(b"["):
            message = f"{self._path}: begins with `[`, so it is no JSON lines; for an array of objects give --format json"
            raise InputError.of("file", "format", message)
        first, _, rest = text.partition(b"\n")
        if text.startswith(b"{") and rest.strip() and _is_incomplete(first):
            message = (
                f"{self._path}: one JSON object over several lines; "
                "JSON lines (one object a line) or an array of objects is needed"
            )
            raise InputError.of("file", "format", message)
        if not text and whole:
            raise InputError.of("file", "empty", f"{self._path}: the file is empty")

    def _items(self, source: OpenSource) -> Iterator[_Item]:
        cut: Line | None = None
        for line in lines(source):
            if cut is not None:
                if line.is_last:
                    yield _Item(line=cut, is_too_long=True)
                    cut = None
            elif not line.is_last:
                cut = Line(number=line.number, offset=line.offset, data=b"", is_last=True, end=line.end)
            elif line.data.strip():
                yield _Item(line=line, is_too_long=len(line.data) > MAX_ROW_BYTES)


class JsonArrayTable(_JsonTable):
    """An array of JSON objects, which is read item by item."""

    format = "json"

    def _check(self) -> None:
        sample, _ = self._source.sample()
        if not sample.lstrip().startswith(b"["):
            message = f"{self._path}: does not begin with `[`, so it is no array; for one object a line give --format jsonl"
            raise InputError.of("file", "format", message)

    def _items(self, source: OpenSource) -> Iterator[_Item]:
        return ArrayItems(source, self._path).read()


_OUTSIDE = re.compile(rb'["\[\]{},]')
_INSIDE = re.compile(rb'["\\]')


class ArrayItems:
    """Divides the text of an array at the commas of its first level, without reading it whole."""

    def __init__(self, source: OpenSource, path: Path) -> None:
        self._source = source
        self._path = path
        self._depth = 0
        self._in_string = False
        self._is_escaped = False
        """Whether the block ended with a backslash in a string."""
        self._is_complete = False
        self._item = bytearray()
        self._size = 0
        """Of the item so far, without the blanks before it; more than `_item` has if it is too long."""
        self._line, self._offset = 1, 0
        """Where the item begins."""
        self._line_feeds = 0
        """In the item so far."""

    def read(self) -> Iterator[_Item]:
        """Yields all items. Raises InputError if the array is not complete, or something follows it."""
        while block := self._source.read():
            self._offset = self._offset or self._source.mark_bytes
            yield from self._items_of(block)
        if not self._is_complete:
            raise self._error("the array is not closed; the file is incomplete")

    def _items_of(self, block: bytes) -> Iterator[_Item]:
        """Yields the items that end in a block."""
        start = 0
        for token in self._brackets_and_commas(block):
            kind = token.group()
            self._depth += 1 if kind in b"[{" else 0 if kind == b"," else -1
            if kind == b"[" and self._depth == 1:  # of the array itself
                self._line += block[: token.end()].count(b"\n")
                self._offset += token.end()
                start = token.end()
            elif self._depth == 0 or (kind == b"," and self._depth == 1):
                self._keep(block[start : token.start()])
                start = token.end()
                self._is_complete = self._depth == 0
                if (
                    self._size or not self._is_complete
                ):  # nothing follows the last comma, or the array is empty
                    yield self._finished(token.end())
            if self._is_complete:
                break
        self._keep(block[start:])
        if self._is_complete and self._size:
            raise self._error("text follows the end of the array")

    def _brackets_and_commas(self, block: bytes) -> Iterator[re.Match[bytes]]:
        """Yields those outside of strings."""
        if self._is_complete:
            return
        at = int(self._is_escaped)
        self._is_escaped = False
        while token := (_INSIDE if self._in_string else _OUTSIDE).search(block, at):
            at = token.end()
            if token.group() == b"\\":
                self._is_escaped = at == len(block)
                at += 1
            elif token.group() == b'"':
                self._in_string = not self._in_string
            else:
                yield token

    def _keep(self, data: bytes) -> None:
        if not self._size:
            text = data.lstrip()
            blanks = data[: len(data) - len(text)]
            self._line += blanks.count(b"\n")
            self._offset += len(blanks)
            data = text
        self._size += len(data)
        self._line_feeds += data.count(b"\n")
        if self._size > MAX_ROW_BYTES:
            self._item.clear()
        else:
            self._item += data

    def _finished(self, at: int) -> _Item:
        """Returns the item that ends before byte `at` of the block."""
        line = Line(
            number=self._line,
            offset=self._offset,
            data=bytes(self._item),
            is_last=True,
            end=self._source.position(at),
        )
        item = _Item(line=line, is_too_long=self._size > MAX_ROW_BYTES)
        self._line += self._line_feeds
        self._offset += self._size + 1  # the comma
        self._item, self._size, self._line_feeds = bytearray(), 0, 0
        return item

    def _error(self, reason: str) -> InputError:
        return InputError.of("file", "format", f"{self._path}: line {self._line:,}: {reason}")


def _row(number: int, item: _Item) -> Row | Refusal:
    line = item.line
    try:
        if item.is_too_long:
            raise Refused("row_too_long", f"the row has more than {MAX_ROW_BYTES:,} bytes")
        cells = parse_object(decoded(line))
    except NotUtf8 as error:
        refused = Refused("not_utf8", str(error))
    except Refused as error:
        refused = error
    else:
        return Row(number=number, line=line.number, end=line.end, cells=cells)
    return Refusal(
        number=number,
        line=line.number,
        end=line.end,
        field=refused.field,
        rule=refused.rule,
        reason=refused.reason,
    )


def parse_object(text: str) -> dict[str, Cell]:
    """Returns the values of a flat JSON object as text. Raises Refused."""
    if _depth(text) > _MAX_DEPTH:
        raise Refused("not_json", "nested too deeply; a flat JSON object is needed")
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_int=str, parse_float=str, parse_constant=_no_constant
        )
    except json.JSONDecodeError as error:
        raise Refused("not_json", f"not JSON at character {error.pos + 1:,}: {error.msg}") from None
    if not isinstance(value, dict):
        raise Refused("not_an_object", 'a JSON object is needed, e.g. {"text": "..."}')
    return {name: _cell(each) for name, each in value.items() if each is not None}


def _cell(value: object) -> Cell:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else NotText("wrong_type", _KINDS[type(value)])


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in result if names.count(name) > 1)
        raise Refused("duplicate_field", "the field occurs twice; each may occur once", twice[:100])
    if any(_SURROGATE.search(name) for name in result):
        raise Refused("not_text", "a field's name has a lone surrogate, which UTF-8 cannot carry")
    return result


def _no_constant(name: str) -> object:
    raise Refused("not_json", f"{name} is no JSON")


def _depth(text: str) -> int:
    """Returns how deeply arrays and objects nest, as far as it matters: json's parser recurses in C."""
    if text.count("[") + text.count("{") <= _MAX_DEPTH:
        return 0
    depth = deepest = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _is_incomplete(first: bytes) -> bool:
    """Returns whether a first line ends within an object, as indented JSON does. One that was cut ends within a value."""
    text = _STRINGS.sub("", first.decode(errors="replace")).rstrip()
    return text.endswith(("{", "[", ",")) and text.count("{") + text.count("[") > text.count(
        "}"
    ) + text.count("]")
