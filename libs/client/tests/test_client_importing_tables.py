"""Files become rows: what was written is what is read, and what cannot be read is named and does not end it."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from openledger_client.importing import InputError, Refusal, Row, check_chat, open_table
from openledger_client.importing.csv_table import DELIMITERS, sniff
from openledger_client.importing.json_tables import ArrayItems
from openledger_client.importing.lines import lines
from openledger_client.importing.rows import MAX_ROW_BYTES
from openledger_client.importing.source import OpenSource

# The same examples in each run, whatever the load of the machine.
steady = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
RECORDS = st.lists(st.fixed_dictionaries({"text": TEXT, "label": TEXT, "note": TEXT}), max_size=5)


class Blocks:
    """A source that yields its text in pieces."""

    mark_bytes = 0

    def __init__(self, text: bytes, size: int) -> None:
        self._pieces = iter([text[at : at + size] for at in range(0, len(text), size)])

    def read(self) -> bytes:
        return next(self._pieces, b"")

    def position(self, at: int) -> int:
        return at


def read(path: Path, **options: Any) -> list[Row | Refusal]:
    return list(open_table(path, **options).rows())


def cells(path: Path, **options: Any) -> list[dict[str, object]]:
    found = read(path, **options)
    assert all(isinstance(each, Row) for each in found), found
    return [dict(each.cells) for each in found if isinstance(each, Row)]


def refused(found: list[Row | Refusal]) -> list[tuple[int, int | None, str]]:
    return [(each.number, each.line, each.rule) for each in found if isinstance(each, Refusal)]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bytes], Path]:
    folder = tmp_path_factory.mktemp("files")

    def written(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return written


@steady
@given(records=RECORDS, delimiter=st.sampled_from(DELIMITERS), end=st.sampled_from(["\n", "\r\n"]))
def test_what_the_csv_module_writes_is_read(
    write: Callable[[str, bytes], Path], records: list[dict[str, str]], delimiter: str, end: str
) -> None:
    out = io.StringIO(newline="")
    quoting = (
        csv.QUOTE_ALL if end == "\n" else csv.QUOTE_MINIMAL
    )  # the module does not quote a return before a line feed
    writer = csv.DictWriter(
        out, ["text", "label", "note"], delimiter=delimiter, lineterminator=end, quoting=quoting
    )
    writer.writeheader()
    writer.writerows(records)
    path = write("a.csv", out.getvalue().encode())
    filled = [{name: value for name, value in each.items() if value} for each in records]
    assert cells(path, delimiter=delimiter) == filled


@steady
@given(records=RECORDS, mark=st.booleans())
def test_json_is_read_as_lines_and_as_an_array(
    write: Callable[[str, bytes], Path], records: list[dict[str, str]], mark: bool
) -> None:
    before = "\ufeff" if mark else ""
    each = [json.dumps(record, ensure_ascii=False) for record in records]
    as_lines = gzip.compress((before + "\n\n".join(each) + "\n{}").encode(), 1)
    assert cells(write("a.jsonl.gz", as_lines)) == [*records, {}]
    as_array = (before + "\n [" + " ,\n".join(each) + " ]\n").encode()
    assert cells(write("a.json", as_array)) == records


@steady
@given(records=RECORDS, indent=st.sampled_from([None, 1]), size=st.integers(1, 9))
def test_where_blocks_end_makes_no_difference(
    records: list[dict[str, str]], indent: int | None, size: int
) -> None:
    text = json.dumps(records, indent=indent).encode()
    items = ArrayItems(cast(OpenSource, Blocks(text, size)), Path("a.json")).read()
    found = [(item.line.number, item.line.offset, json.loads(item.line.data)) for item in items]
    assert [value for _, _, value in found] == records
    for line, offset, value in found:
        assert json.JSONDecoder().raw_decode(text.decode(), offset)[0] == value
        assert text[:offset].count(b"\n") + 1 == line
    divided = list(lines(cast(OpenSource, Blocks(text, size))))
    assert b"\n".join(line.data for line in divided) == text
    assert all(text[line.offset :].startswith(line.data) for line in divided)


def test_parquet_is_read_with_its_types_as_text(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["a", None, "ä"],
            "label": pa.array(["x", "y", "x"]).dictionary_encode(),
            "whole": pa.array([1, None, -(2**60)]),
            "part": pa.array([0.1, 2.0, float("nan")], pa.float32()),
            "flag": [True, False, None],
            "day": pa.array([0, 1, 2], pa.date32()),
            "tags": [["a"], None, []],
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    found = read(tmp_path / "a.parquet")
    assert [(each.number, each.line) for each in found] == [(1, None), (2, None), (3, None)]
    first, second, third = (each.cells for each in found if isinstance(each, Row))
    tags = first["tags"]
    assert dict(first) == {
        "text": "a", "label": "x", "whole": "1", "part": "0.1", "flag": "true", "day": "1970-01-01", "tags": tags
    }  # fmt: skip
    assert dict(second) == {"label": "y", "part": "2", "flag": "false", "day": "1970-01-02"}
    assert (third["whole"], third["text"]) == ("-1152921504606846976", "ä")
    assert [getattr(each, "kind", "") for each in (tags, third["part"])] == ["a list", "not a finite number"]
    only = open_table(tmp_path / "a.parquet").rows(frozenset({"label"}))
    assert [dict(each.cells) for each in only if isinstance(each, Row)] == [{"label": each} for each in "xyx"]


def test_numbers_of_json_keep_their_form(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1.50, "b": 1e3, "c": true, "d": null, "e": ' + "9" * 5000 + "}")
    assert cells(tmp_path / "a.jsonl") == [{"a": "1.50", "b": "1e3", "c": "true", "e": "9" * 5000}]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (b'{"text": "x"', "not_json"),
        (b'{"text": NaN}', "not_json"),
        (b'{"text": ' + b"[" * 100_000, "not_json"),
        (b'["text"]', "not_an_object"),
        (b'{"text": "x", "text": "y"}', "duplicate_field"),
        (b'{"\\ud800": "x"}', "not_text"),
        (b'{"text": "\xff"}', "not_utf8"),
        (b'{"text": "' + b"x" * MAX_ROW_BYTES + b'"}', "row_too_long"),
    ],
    ids=["cut", "nan", "deep", "list", "twice", "surrogate", "bytes", "long"],
)
def test_a_line_that_is_no_record_is_refused_and_the_rest_is_read(
    line: bytes, rule: str, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "before"}\n\n' + line + b'\n{"text": "after"}\n')
    found = read(tmp_path / "a.jsonl")
    assert refused(found) == [(2, 3, rule)]
    assert [each.cells["text"] for each in found if isinstance(each, Row)] == ["before", "after"]
    assert [each.line for each in found] == [1, 3, 4]


@pytest.mark.parametrize(
    ("record", "rule"),
    [
        (b"one cell", "cells"),
        (b"a,b,c", "cells"),
        (b'"a" b,c', "quotes"),
        (b'"a\nb" c,d', "quotes"),
        (b"caf\xe9,x", "not_utf8"),
        (b'"' + b"x" * 9_000_000 + b"\n" + b"x" * 9_000_000 + b'",x', "row_too_long"),
        (b"x" * (MAX_ROW_BYTES + 300_000) + b",x", "row_too_long"),
    ],
    ids=["few", "many", "after-quote", "lines", "bytes", "long-cell", "long-line"],
)
def test_a_csv_record_that_is_wrong_is_refused_and_the_rest_is_read(
    record: bytes, rule: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_bytes(b"text,label\n\nbefore,1\n" + record + b"\nafter,2\n")
    found = read(tmp_path / "a.csv", delimiter=",")
    assert refused(found) == [(2, 4, rule)]
    assert [each.cells["text"] for each in found if isinstance(each, Row)] == ["before", "after"]


def test_a_byte_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftext,label\r\nfine,1\r\nna\xefve,2\r\n")
    _, found = read(tmp_path / "a.csv")
    assert isinstance(found, Refusal)
    assert "byte 3 of line 3 (0xef, byte 26 of the text) is not UTF-8" in found.reason
    assert "--encoding windows-1252" in found.reason
    assert cells(tmp_path / "a.csv", encoding="windows-1252")[1]["label"] == "2"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "windows-1252", "utf-8-sig"])
def test_other_encodings_are_read(encoding: str, tmp_path: Path) -> None:
    text = "text;label\n" + "".join(f"naïve {n};x\n" for n in range(10_000))
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    found = read(tmp_path / "a.csv", encoding=encoding)
    assert len(found) == 10_000
    last = found[-1]
    assert isinstance(last, Row)
    assert [each.end for each in found] == sorted(each.end for each in found)
    assert 0 < found[0].end < 100 < last.end <= (tmp_path / "a.csv").stat().st_size
    assert (last.line, dict(last.cells)) == (10_001, {"text": "naïve 9999", "label": "x"})


def test_where_another_encoding_breaks_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("text;label\nx;y\n".encode("utf-16-le") + b"\x00\xd8\x0a\x00")
    with pytest.raises(InputError, match="line 3, byte 31: not utf-16-le"):
        read(tmp_path / "a.csv", encoding="utf-16-le")


def test_a_cell_of_200_kb_is_read(tmp_path: Path) -> None:
    long = "word " * 40_000 + '"\n'
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], [long, "x"]])
    assert cells(tmp_path / "a.csv") == [{"text": long, "label": "x"}]


@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_the_delimiter_is_that_with_equal_rows(delimiter: str) -> None:
    rows = [["text", "label", "note"], ["a, b; c | d\te", "x", ""], ['"a"\nb', "y", "1,5"]] * 5
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter).writerows(rows)
    assert sniff(out.getvalue().encode()).delimiter == delimiter


def test_lines_that_end_with_a_return_are_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text,label\ra,1\rb,2\r")
    assert [each["text"] for each in cells(tmp_path / "a.csv")] == ["a", "b"]


def whole_files() -> Iterator[tuple[str, bytes, str]]:
    """A file's name, content, and what its error says."""
    yield "a.txt", b"x", r"ending of 'a.txt' is not one of '.csv'"
    yield "a.csv", b"", "the file is empty"
    yield "a.jsonl", b"\n", "the file is empty"
    yield "a.csv", b"text,text\n", "names 'text' twice"
    yield "a.csv", "text\n".encode("utf-16"), "give --encoding utf-16"
    yield "a.csv", b"PK\x03\x04", "a ZIP archive or a spreadsheet"
    yield "a.csv", b"PAR1", "is Parquet, which contradicts the format 'csv'"
    yield "a.parquet", b"text\n", "is no Parquet"
    yield "a.parquet", b"PAR1PAR1", "not a readable Parquet file"
    yield "a.jsonl", b"[1]", "give --format json"
    yield "a.json", b'{\n  "text": "x"\n}\n', "one JSON object over several lines"
    yield "a.json", b'[{"text": "x"}, {"te', "line 1: the array is not closed"
    yield "a.json", b'[{"text": "x"}]\nx', "line 2: text follows the end of the array"
    yield "a.csv", gzip.compress(b"text,label\n" + bytes(range(256)) * 99)[:-90], "damaged or incomplete"


@pytest.mark.parametrize(("name", "content", "message"), whole_files())
def test_a_file_that_cannot_be_read_is_one_error(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path / name)


def test_a_first_line_that_was_cut_does_not_refuse_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x", "label": "y\n{"text": "x"}\n')
    assert refused(read(tmp_path / "a.jsonl")) == [(1, 1, "not_json")]


def test_a_file_that_cannot_be_read_twice_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    with os.fdopen(os.open(tmp_path / "a.csv", os.O_RDWR), "w"), pytest.raises(InputError, match="is a pipe"):
        open_table(tmp_path / "a.csv")


def test_a_parquet_file_may_have_no_rows_and_no_columns_to_read(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "a.parquet")
    found = list(open_table(tmp_path / "a.parquet").rows(frozenset()))
    assert [(each.number, dict(each.cells)) for each in found if isinstance(each, Row)] == [(1, {}), (2, {})]
    parquet.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == []


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("a.csv", "a.json", "a.parquet"):
        with pytest.raises(InputError, match="cannot be read: No such file"):
            open_table(tmp_path / name)


@pytest.mark.parametrize("name", ["messages", "conversations"])
def test_chat_records_are_recognised(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({name: [{"role": "user", "content": "Hello"}]}))
    with pytest.raises(InputError, match="records of messages are not supported yet"):
        check_chat(open_table(tmp_path / "a.jsonl"))
    (tmp_path / "b.jsonl").write_text(json.dumps({name: "a text"}))
    check_chat(open_table(tmp_path / "b.jsonl"))
