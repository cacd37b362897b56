"""The client's import of a file agrees with this service: about what is refused, and about what is the same record."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import protovalidate
import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from openledger.datanet.v1 import datanet_pb2 as pb

from datanet import contribution
from datanet.contribution import Rejection
from datanet.convert import to_datanet
from openledger_client.importing import (
    FieldMapping,
    Identity,
    Importer,
    Plan,
    ProgressFile,
    Tally,
    check,
    open_table,
)
from openledger_client.importing.definition_toml import to_toml
from openledger_client.importing.suggesting import suggest
from openledger_client.paging import items

FIELD = pb.RecordSchema.Field
SCHEMA = pb.RecordSchema(
    fields=[
        FIELD(name="text", required=True, max_length=8),
        FIELD(name="label", allowed_values=["fire", "water"]),
        FIELD(name="note", required=True),
    ],
    prompt_template="{text}",
    completion_template="{note}",
)
ODD = ["", " ", "\x00", "\x1c", "\x85", "\u200b", "\u2028", "\ud800", "\n", "e\u0301", "e" + "\u0301" * 40]
VALUES = st.sampled_from([*ODD, "fire", "water", "wind", "x" * 8, "x" * 9, "\U0001f525" * 8]) | st.text(
    max_size=9
)
MORE_THAN_THE_CLIENT_KNOWS = {"empty_field", "combining_marks"}
"""What no reader sees needs a table of Unicode."""


@settings(
    max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(record=st.dictionaries(st.sampled_from(["text", "label", "note"]), VALUES))
@example(record={"text": "\u200b", "label": "wind", "note": "x"})
def test_what_the_client_refuses_the_service_refuses_by_the_same_rule(record: dict[str, str]) -> None:
    found = check(record, SCHEMA)
    schema = to_datanet("datanets/d", pb.Datanet(schema=SCHEMA)).schema
    judged = contribution.parse(json.dumps(record).encode(), schema)
    if found is None:
        assert not isinstance(judged, Rejection) or judged.rule in MORE_THAN_THE_CLIENT_KNOWS
        return
    assert isinstance(judged, Rejection)
    if judged.rule not in MORE_THAN_THE_CLIENT_KNOWS:
        assert (judged.field, judged.rule) == found[:2]


ROWS = 60


def claim(number: int) -> tuple[str, str]:
    """Text and label: every 7th has a wrong label, and every 10th is too short for the service."""
    text = "Burnt" if number % 10 == 0 else f"The intruder listed all files of host {number} by a script"
    return f"{text} {number}", "weather" if number % 7 == 0 else "discovery"


class Killed(BaseException):
    """Ends an import without a chance to write anything."""


def plan(net: Any, folder: Path) -> Plan:
    table = open_table(folder / "claims.csv")
    schema = net.made.schema
    rejected = folder / "rejected.jsonl"
    identity = Identity.of(folder / "claims.csv", net.alice, [], rejected)
    return Plan(
        contributor=net.alice,
        table=table,
        schema=schema,
        mapping=FieldMapping.of(schema, table, columns={"text": "report"}, constants={"source": "claims"}),
        rejected=rejected,
        progress_file=ProgressFile(folder / "progress.json", identity),
        write_every_s=0,
    )


@pytest.mark.slow
def test_an_import_that_was_killed_and_resumed_leaves_each_record_once(own_net: Any, tmp_path: Path) -> None:
    lines = [",".join(claim(number)) for number in range(1, ROWS + 1)]
    (tmp_path / "claims.csv").write_text("report,tactic\n" + "\n".join(lines))
    stub = own_net.client("alice")
    left: list[tuple[bytes, bytes]] = []

    def moved(tally: Tally) -> None:
        if tally.rows >= ROWS // 2 and not left:
            left.append(
                ((tmp_path / "progress.json").read_bytes(), (tmp_path / "rejected.jsonl").read_bytes())
            )
            raise Killed

    first = plan(own_net, tmp_path)
    with pytest.raises(Killed):
        Importer(first, moved=moved).run(stub)
    (progress, rejected) = left[0]  # what the disk had at that moment
    (tmp_path / "progress.json").write_bytes(progress)
    (tmp_path / "rejected.jsonl").write_bytes(rejected)
    again = plan(own_net, tmp_path)
    assert again.progress_file is not None
    done = again.progress_file.read()
    assert done is not None
    assert 0 < done.rows <= ROWS // 2
    tally = Importer(again, done=done).run(stub)
    wrong = {number for number in range(1, ROWS + 1) if number % 7 == 0}
    short = set(range(10, ROWS + 1, 10)) - wrong
    listed = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert [(each["row"], each["rule"]) for each in listed] == sorted(
        [*((number, "label_not_allowed") for number in wrong), *((number, "too_short") for number in short)]
    )
    assert tally.accepted + tally.present + tally.refused_count == tally.rows == ROWS
    assert stored(own_net) == sorted(claim(n)[0] for n in range(1, ROWS + 1) if n not in wrong | short)
    repeated = Importer(plan(own_net, tmp_path)).run(stub)
    assert (repeated.accepted, repeated.present) == (0, ROWS - len(wrong | short))
    assert dict(repeated.refused) == {"label_not_allowed": len(wrong), "too_short": len(short)}


def stored(net: Any) -> list[str]:
    """The texts of the accepted records."""
    request = pb.ListRecordsRequest(parent=net.name, state=pb.RECORD_STATE_ACCEPTED, view=2)
    found = items(net.owner.ListRecords, request, lambda page: page.records)
    return sorted(json.loads(record.content)["text"] for record in found)


@pytest.mark.parametrize(
    "write",
    [
        lambda n: json.dumps({"Report": f'Claim "{n}" \x7f\\', "cause": "fire", "2nd note": "x"}),
        lambda n: json.dumps({"a": "long text of some words", "class": str(n % 2), "Ünïcode": "é" * n}),
        lambda n: json.dumps({f"column {each}": "x" * each for each in range(1, 40)}),
    ],
)
def test_a_suggested_definition_is_one_that_the_service_takes(
    write: Callable[[int], str], tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(write(n) for n in range(1, 30)))
    text = to_toml(suggest(open_table(tmp_path / "a.jsonl"), "a.jsonl"))
    message = ParseDict(tomllib.loads(text), pb.Datanet())
    protovalidate.validate(message)
    to_datanet("datanets/d", message).validate()
    assert 2 <= len(message.schema.fields) <= 32
