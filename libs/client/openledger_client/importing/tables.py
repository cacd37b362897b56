"""Opens a file as a table, by its ending or by the format that is given."""

from __future__ import annotations

from pathlib import Path

from openledger_client.importing.csv_table import CsvTable
from openledger_client.importing.json_tables import JsonArrayTable, JsonLinesTable
from openledger_client.importing.parquet_table import ParquetTable
from openledger_client.importing.rows import InputError, NotText, Row, Table, listed
from openledger_client.importing.source import Source, reading

FORMATS = ("csv", "jsonl", "json", "parquet")

_ENDINGS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}
_CHAT = ("messages", "conversations")
_ZIP, _PARQUET = b"PK\x03\x04", b"PAR1"


def open_table(path: Path, *, format: str = "", encoding: str = "utf-8", delimiter: str = "") -> Table:
    """Returns a file as a table of rows. Text files may be compressed by gzip, whatever their name says.

    Args:
        path: the file.
        format: one of `FORMATS`; "" takes the one of the file's ending: .csv, .tsv, .jsonl, .ndjson, .json, with or without .gz,
            and .parquet. A .json file is an array if it begins with `[`, otherwise JSON lines.
        encoding: of a text file, by Python's name.
        delimiter: of a CSV; "" derives it from the file.

    Raises:
        InputError: the file cannot be read, or not as this format; or it holds chat records, which are not supported yet.
    """
    format = format or _format_of(path, encoding)
    _check_begin(path, format)
    if format == "parquet":
        return ParquetTable(path)
    if format == "csv":
        return CsvTable(
            path, encoding=encoding, delimiter=delimiter or ("\t" if _ending(path) == ".tsv" else "")
        )
    if format == "json":
        return JsonArrayTable(path, encoding=encoding)
    return JsonLinesTable(path, encoding=encoding)


def check_chat(table: Table) -> None:
    """Raises InputError if the first rows hold conversations, as in chat data: lists of messages."""
    for row, _ in zip(table.rows(), range(10), strict=False):
        for name in _CHAT:
            found = row.cells.get(name) if isinstance(row, Row) else None
            if isinstance(found, NotText) and found.kind == "a list":
                message = f"the file holds chat records (`{name}`); records of messages are not supported yet"
                raise InputError.of("file", "chat_records", message)


def _ending(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _format_of(path: Path, encoding: str) -> str:
    format = _ENDINGS.get(_ending(path))
    if format is None:
        message = f"the ending of {path.name!r} is not one of {listed(_ENDINGS)}; give --format"
        raise InputError.of("format", "known", message)
    if _ending(path) == ".json":
        sample, _ = Source(path, encoding).sample()
        return "json" if sample.lstrip().startswith(b"[") else "jsonl"
    return format


def _check_begin(path: Path, format: str) -> None:
    """Names a file whose first bytes contradict its format."""
    if format not in FORMATS:
        raise InputError.of("format", "known", f"{format!r} is not one of {listed(FORMATS)}")
    with reading(path) as file:
        begin = file.read(4)
    if begin == _ZIP and format != "parquet":
        message = f"{path}: a ZIP archive or a spreadsheet; unpack it, or save the sheet as CSV"
        raise InputError.of("file", "format", message)
    if (begin == _PARQUET) != (format == "parquet"):
        message = f"{path}: {'is' if begin == _PARQUET else 'is no'} Parquet, which contradicts the format {format!r}"
        raise InputError.of("file", "format", message)
