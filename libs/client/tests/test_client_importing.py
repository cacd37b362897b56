"""Rows become records by a mapping and a schema, and an import that is interrupted anywhere loses and doubles nothing."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from openledger.datanet.v1 import datanet_pb2 as pb

from openledger_client import Client
from openledger_client.errors import PermissionDenied
from openledger_client.importing import (
    FieldMapping,
    Identity,
    Importer,
    InputError,
    Plan,
    Prepared,
    ProgressFile,
    Refusal,
    Tally,
    check,
    open_table,
    prepared,
    rendered,
)
from openledger_client.testing import Script, answer

CONTRIBUTOR = "datanets/d/contributors/c"
FIELD = pb.RecordSchema.Field
SCHEMA = pb.RecordSchema(
    fields=[
        FIELD(name="text", required=True, max_length=20),
        FIELD(name="label", required=True, allowed_values=["fire", "water"]),
        FIELD(name="source"),
    ],
    prompt_template="Claim {{x}}: {text}\nCause:",
    completion_template=" {label}",
)


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Any]:
    """Opens a file with this content."""

    def opened(content: str, name: str = "claims.csv") -> Any:
        (tmp_path / name).write_text(content)
        return open_table(tmp_path / name)

    return opened


def rows(table: Any, **mapping: Any) -> list[Prepared | Refusal]:
    return list(prepared(table, SCHEMA, FieldMapping.of(SCHEMA, table, **mapping)))


def test_columns_are_mapped_and_constants_set(table: Callable[..., Any]) -> None:
    found = rows(
        table("Report,label,id\nIt burned,fire,7\n"),
        columns={"text": "Report"},
        constants={"source": "s"},
        ignore_other_columns=True,
    )
    (row,) = [each for each in found if isinstance(each, Prepared)]
    assert json.loads(row.content) == {"text": "It burned", "label": "fire", "source": "s"}
    assert (row.line, row.number) == (2, 1)
    assert rendered(SCHEMA, row.record) == ("Claim {x}: It burned\nCause:", " fire")
    assert rendered(SCHEMA, {"text": "{label}", "label": "x"}) == ("Claim {x}: {label}\nCause:", " x")


@pytest.mark.parametrize(
    ("mapping", "option", "message"),
    [
        ({}, "map", "the required field 'text' has no column: the file has 'report', 'label', 'id'"),
        ({"columns": {"text": "report"}}, "map", "no field takes the columns 'id' of the file"),
        ({"columns": {"text": "report"}}, "map", "the Datanet's fields are 'text', 'label', 'source'"),
        (
            {"columns": {"text": "reprot"}},
            "map",
            "no column 'reprot'; its columns are 'report', 'label', 'id'",
        ),
        ({"columns": {"txt": "report"}}, "map", "'txt' is not a field of the Datanet"),
        ({"constants": {"cause": "x"}}, "set", "'cause' is not a field of the Datanet"),
        ({"columns": {"text": "id"}, "constants": {"text": "x"}}, "set", "has a column"),
        # What a constant replaces is not left out without a word.
        ({"columns": {"text": "report"}, "constants": {"label": "fire"}}, "map", "columns 'label', 'id'"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused_before_any_row(
    mapping: dict[str, Any], option: str, message: str, table: Callable[..., Any]
) -> None:
    with pytest.raises(InputError, match=message) as raised:
        rows(table("report,label,id\nIt burned,fire,7\n"), **mapping)
    assert raised.value.violations[0].field == option


@pytest.mark.parametrize(
    ("row", "broken"),
    [
        ({"text": "x", "label": "fire"}, None),
        ({"text": "x", "label": "fire", "source": None, "unused": None}, None),
        ({"text": "x", "label": "fire", "unused": 1}, ("unused", "unknown_field")),
        ({"text": "x"}, ("label", "missing_field")),
        ({"text": None, "label": "fire"}, ("text", "missing_field")),
        ({"text": " ", "label": "fire"}, ("text", "empty_field")),
        ({"text": ["x"], "label": "fire"}, ("text", "wrong_type")),
        ({"text": {"x": 1}, "label": "fire"}, ("text", "wrong_type")),
        ({"text": "x" * 21, "label": "fire"}, ("text", "too_long")),
        ({"text": "x\0", "label": "fire"}, ("text", "control_character")),
        ({"text": "\ud800", "label": "fire"}, ("text", "not_text")),
        ({"text": "x", "label": "wind"}, ("label", "label_not_allowed")),
        ({"text": "x", "label": "fire", "source": "x" * 65_537}, ("source", "too_long")),
    ],
)
def test_each_rule_of_the_schema_names_the_field(
    row: dict[str, Any], broken: tuple[str, str] | None, table: Callable[..., Any]
) -> None:
    lines = [json.dumps({"text": "first", "label": "fire"})] * 100 + [json.dumps(row)]
    found = rows(table("\n".join(lines), "a.jsonl"))[-1]
    assert (found.line, found.number) == (101, 101)
    assert broken == ((found.field, found.rule) if isinstance(found, Refusal) else None)


def test_a_reason_names_the_column_and_never_the_value(table: Callable[..., Any]) -> None:
    (found,) = rows(table("report,label\nIt burned,secret\n"), columns={"text": "report"})
    assert isinstance(found, Refusal)
    assert found.reason == "not an allowed value; allowed are 'fire', 'water'"
    (found,) = rows(table("report,label\n" + "secret " * 5 + ",fire\n"), columns={"text": "report"})
    assert isinstance(found, Refusal)
    assert found.reason == "the value has 35 characters; at most 20 are allowed (column 'report')"


def test_a_record_of_more_than_1_mib_is_refused(table: Callable[..., Any]) -> None:
    schema = pb.RecordSchema(fields=[FIELD(name="text", max_length=1 << 20)])
    found = table("text\n" + "ä" * 600_000 + "\n" + "ä" * 500_000 + "\n")
    mapping = FieldMapping.of(schema, found)
    first, second = prepared(found, schema, mapping)
    assert isinstance(first, Refusal)
    assert (first.rule, first.field) == ("too_large", "")
    assert isinstance(second, Prepared)
    assert check({"text": "ä" * 500_000}, schema) is None


class Store:
    """A Datanet that recognises records, and may lose a connection. Without a network."""

    def __init__(self, judge: Callable[[bytes], str] = lambda content: "") -> None:
        self.stored: list[bytes] = []
        self.sent = 0
        self._judge = judge

    def Contribute(self, requests: Iterable[pb.ContributeRequest]) -> Any:
        return _Stream(self._answers(requests))

    def _answers(self, requests: Iterable[pb.ContributeRequest]) -> Iterator[pb.ContributeResponse]:
        for request in requests:
            self.sent += 1
            known = request.content in self.stored
            if not known:
                self.stored.append(request.content)
            yield answer(request, self._judge(request.content), already_present=known)


class _Stream:
    def __init__(self, answers: Iterator[pb.ContributeResponse]) -> None:
        self._answers = answers

    def __iter__(self) -> Iterator[pb.ContributeResponse]:
        return self._answers

    def cancel(self) -> None:
        pass


ROWS = 30
CLAIMS = "text,label\n" + "".join(
    f"claim {n},{'wind' if n % 7 == 0 else 'fire'}\n" for n in range(1, ROWS + 1)
)
HERE = [n for n in range(1, ROWS + 1) if n % 7 == 0]
"""Rows that the client refuses."""
THERE = [n for n in range(1, ROWS + 1) if n % 10 == 5 and n % 7]
"""Rows that the service rejects."""


def judge(content: bytes) -> str:
    return "too_short" if json.loads(content)["text"] in {f"claim {n}" for n in THERE} else ""


class Folder:
    """The files of one import."""

    def __init__(self, path: Path) -> None:
        path.mkdir(exist_ok=True)
        self.claims = path / "claims.csv"
        self.rejected = path / "rejected.jsonl"
        if not self.claims.exists():
            self.claims.write_text(CLAIMS)
        identity = Identity.of(self.claims, CONTRIBUTOR, ["settings"], self.rejected)
        self.progress = ProgressFile(ProgressFile.beside(self.claims), identity)
        table = open_table(self.claims)
        self.plan = Plan(
            contributor=CONTRIBUTOR,
            table=table,
            schema=SCHEMA,
            mapping=FieldMapping.of(SCHEMA, table),
            rejected=self.rejected,
            progress_file=self.progress,
            write_every_s=0,
        )

    def rejected_rows(self) -> list[tuple[int, str]]:
        found = [json.loads(line) for line in self.rejected.read_bytes().splitlines()]
        assert all(each["line"] == each["row"] + 1 for each in found)
        return [(each["row"], each["rule"]) for each in found]


EXPECTED = sorted([*((n, "label_not_allowed") for n in HERE), *((n, "too_short") for n in THERE)])


def check_complete(store: Store, folder: Folder, tally: Tally) -> None:
    """Each row is in the Datanet or in the file of rejected rows, once, and is counted once."""
    sent = [f"claim {n}" for n in range(1, ROWS + 1) if n not in HERE]
    assert [json.loads(each)["text"] for each in store.stored] == sent
    assert folder.rejected_rows() == EXPECTED
    assert Counter(tally.refused) == Counter(rule for _, rule in EXPECTED)
    assert tally.accepted + tally.present + tally.refused_count == tally.rows == ROWS
    assert tally.rejected_bytes == folder.rejected.stat().st_size
    assert not folder.progress.path.exists()


def test_rejected_rows_are_listed_in_the_order_of_the_file(tmp_path: Path) -> None:
    store, folder, seen = Store(judge), Folder(tmp_path), list[Refusal]()
    tally = Importer(folder.plan, refused=seen.append).run(cast(Any, store))
    check_complete(store, folder, tally)
    assert [(each.number, each.rule) for each in seen] == EXPECTED
    assert (tally.accepted, tally.present) == (ROWS - len(EXPECTED), 0)
    assert tally.end == len(CLAIMS)


@pytest.mark.parametrize("killed_at", range(1, ROWS + 1))
def test_killed_after_any_row_and_resumed_nothing_is_lost_or_doubled(killed_at: int, tmp_path: Path) -> None:
    """What a killed process leaves is what is on the disk at that moment: it is copied, and the import continues there."""
    store, folder = Store(judge), Folder(tmp_path / "first")

    class Killed(BaseException):
        pass

    def moved(tally: Tally) -> None:
        if tally.rows == killed_at:
            shutil.copytree(tmp_path / "first", tmp_path / "left")
            raise Killed

    with pytest.raises(Killed):
        Importer(folder.plan, moved=moved).run(cast(Any, store))
    shutil.rmtree(tmp_path / "first")
    (tmp_path / "left").rename(tmp_path / "first")
    left = Folder(tmp_path / "first")
    done = left.progress.read()
    assert done is not None
    assert killed_at - 8 <= done.rows <= killed_at
    check_complete(store, left, Importer(left.plan, done=done).run(cast(Any, store)))


def test_an_interruption_leaves_all_that_is_done(tmp_path: Path) -> None:
    store, folder = Store(judge), Folder(tmp_path)
    stopped = Importer(folder.plan, moved=lambda tally: _interrupt(tally.rows == 20))
    with pytest.raises(KeyboardInterrupt):
        stopped.run(cast(Any, store))
    done = Folder(tmp_path).progress.read()
    assert done == stopped.tally
    assert done.rows == 20
    sent = store.sent
    tally = Importer(Folder(tmp_path).plan, done=done).run(cast(Any, store))
    check_complete(store, folder, tally)
    assert store.sent - sent <= ROWS - 20


def _interrupt(when: bool) -> None:
    if when:
        raise KeyboardInterrupt


def test_repeated_from_the_first_row_nothing_is_doubled(tmp_path: Path) -> None:
    store, folder = Store(judge), Folder(tmp_path)
    Importer(folder.plan).run(cast(Any, store))
    tally = Importer(folder.plan).run(cast(Any, store))
    check_complete(store, folder, tally)
    assert (tally.accepted, tally.present) == (0, ROWS - len(EXPECTED))


def test_lost_connections_are_continued(client: Client, script: Script, tmp_path: Path) -> None:
    script.cut_after, script.judge = [3, 0, 7], judge
    folder = Folder(tmp_path)
    tally = Importer(folder.plan).run(client.datanet)
    assert folder.rejected_rows() == EXPECTED
    assert len(script.stored) == ROWS - len(HERE)
    assert tally.accepted + tally.present + tally.refused_count == tally.rows == ROWS
    assert tally.present > 0


def test_a_refused_stream_ends_the_import_where_it_is(tmp_path: Path) -> None:
    class Closed:
        def Contribute(self, requests: Iterable[pb.ContributeRequest]) -> Any:
            raise PermissionDenied("not the contributor")

    folder = Folder(tmp_path)
    with pytest.raises(PermissionDenied):
        Importer(folder.plan).run(cast(Any, Closed()))
    assert folder.progress.read() is None


def test_a_file_of_refused_rows_only_sends_nothing(tmp_path: Path) -> None:
    (tmp_path / "claims.csv").write_text("text,label\n" + "x,wind\n" * 11_000)
    store, folder = Store(), Folder(tmp_path)
    tally = Importer(folder.plan).run(cast(Any, store))
    assert (tally.rows, tally.refused, store.sent) == (11_000, {"label_not_allowed": 11_000}, 0)
    assert len(folder.rejected_rows()) == 11_000


def test_the_progress_of_another_import_is_not_continued(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert folder.progress.read() is None
    folder.progress.write(Tally(rows=3))
    assert folder.progress.read() == Tally(rows=3)
    for identity, message in (
        (Identity.of(folder.claims, CONTRIBUTOR, ["others"], folder.rejected), "--map"),
        (
            Identity.of(folder.claims, "datanets/d/contributors/e", ["settings"], folder.rejected),
            "contributor",
        ),
        (Identity.of(folder.claims, CONTRIBUTOR, ["settings"], None), "rejected rows"),
    ):
        with pytest.raises(InputError, match=message):
            ProgressFile(folder.progress.path, identity).read()
    folder.claims.write_text(CLAIMS + "x,fire\n")
    with pytest.raises(InputError, match="another size than then"):
        Folder(tmp_path).progress.read()
    folder.progress.path.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        folder.progress.read()


def test_rejected_rows_that_are_gone_are_named(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    full = replace(folder.plan, rejected=Path("/dev/full"))
    with pytest.raises(InputError, match="/dev/full: cannot be written"):
        Importer(full).run(cast(Any, Store()))
    with pytest.raises(InputError, match="cannot be written: No such file"):
        Importer(folder.plan, done=Tally(rows=7, rejected_bytes=100)).run(cast(Any, Store()))
    folder.rejected.write_text("short")
    with pytest.raises(InputError, match="is shorter than the 100 bytes"):
        Importer(folder.plan, done=Tally(rows=7, rejected_bytes=100)).run(cast(Any, Store()))
