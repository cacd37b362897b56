"""Parquet, by pyarrow, which the extra `parquet` of this package installs.

Numbers become the shortest text that reads back to the same number (1.0 is `1`), decimals keep their scale, booleans are
`true` and `false`, dates and times are as in ISO 8601 with a space (`2026-01-31 09:30:00`), null is a missing
value. A number that is not finite has no text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openledger_client.importing.rows import Cell, InputError, NotText, Refusal, Row, listed
from openledger_client.importing.source import reading

_BATCH_BYTES = 4 << 20
_BATCH_ROWS = 1024
_READ_BYTES = 1 << 20
_NOT_FINITE = NotText("wrong_type", "not a finite number")
_NOT_UTF8 = NotText("not_utf8", "not UTF-8")


class ParquetTable:
    """A Parquet file. See `Table`."""

    format = "parquet"
    details = ""
    is_closed = True
    unit = "rows"

    def __init__(self, path: Path) -> None:
        """Reads the file's metadata. Raises InputError."""
        self._path = path
        with reading(path):
            pass
        with self._open() as file:
            schema = file.schema_arrow
            self.columns = tuple(map(str, schema.names))
            self.total = int(file.metadata.num_rows)
            self._kinds = {each.name: kind_without_text(each.type) for each in schema}
        twice = [name for name, count in Counter(self.columns).items() if count > 1]
        if twice:
            raise InputError.of("file", "columns", f"{path}: has {listed(twice)} twice")

    def rows(self, columns: frozenset[str] | None = None) -> Iterator[Row | Refusal]:
        """See `Table`."""
        read = [name for name in self.columns if columns is None or name in columns]
        number = 0
        with self._open() as file:
            for group in range(file.num_row_groups):
                for batch in self._batches(file, group, read):
                    texts = {name: self._texts(name, batch.column(name)) for name in read}
                    for index in range(batch.num_rows):
                        number += 1
                        cells = {name: cell for name in read if (cell := texts[name][index]) is not None}
                        yield Row(number=number, line=None, end=number, cells=cells)

    def _batches(self, file: Any, group: int, columns: list[str]) -> Iterator[Any]:
        """Yields batches of a row group, of about `_BATCH_BYTES`. Raises InputError."""
        found = file.metadata.row_group(group)
        rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES * found.num_rows // max(1, found.total_byte_size)))
        import pyarrow

        try:
            yield from file.iter_batches(
                batch_size=rows, row_groups=[group], columns=columns, use_threads=False
            )
        except (pyarrow.ArrowException, OSError) as error:
            message = f"{self._path}: row group {group + 1:,} of {file.num_row_groups:,} is damaged: {error}"
            raise InputError.of("file", "damaged", message) from None

    def _texts(self, name: str, values: Any) -> list[Cell | None]:
        import pyarrow

        kind = self._kinds[name]
        if kind:
            return [NotText("wrong_type", kind) if each else None for each in values.is_valid().to_pylist()]
        texts = values.cast(pyarrow.string())
        try:
            found: list[Cell | None] = texts.to_pylist()
        except UnicodeDecodeError:
            found = [_text(each) for each in texts]
        if pyarrow.types.is_floating(values.type):
            found = [_NOT_FINITE if each in {"nan", "inf", "-inf"} else each for each in found]
        return found

    def _open(self) -> Any:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            message = "reading Parquet needs pyarrow: pip install 'openledger-client[parquet]'"
            raise InputError.of("format", "installed", message) from None
        try:
            # A buffer: pyarrow would read a whole column of a row group into memory otherwise.
            return parquet.ParquetFile(self._path, buffer_size=_READ_BYTES, pre_buffer=False)
        except (pyarrow.ArrowException, OSError) as error:
            message = f"{self._path}: not a readable Parquet file: {error}"
            raise InputError.of("file", "format", message) from None


def _text(value: Any) -> Cell | None:
    try:
        found: str | None = value.as_py()
    except UnicodeDecodeError:
        return _NOT_UTF8
    return found


def kind_without_text(type_: Any) -> str:
    """Returns what a column's type is called, if its values have no text; "" if they have."""
    from pyarrow import types

    if types.is_dictionary(type_):
        return kind_without_text(type_.value_type)
    if any(
        check(type_)
        for check in (
            types.is_string,
            types.is_large_string,
            types.is_string_view,
            types.is_boolean,
            types.is_integer,
            types.is_floating,
            types.is_decimal,
            types.is_date,
            types.is_time,
            types.is_timestamp,
            types.is_null,
        )
    ):
        return ""
    if types.is_map(type_) or types.is_struct(type_):
        return "an object"
    if types.is_nested(type_):
        return "a list"
    return f"of type {type_}"
