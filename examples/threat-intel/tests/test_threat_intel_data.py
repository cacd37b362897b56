"""The story's records are whole, the same every time, and as good or bad as their contributors are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from datanet.contamination import EvaluationItems, read_items
from datanet.definition import Field, QualityPolicy, RecordSchema
from datanet.near_duplicates import Document, cluster
from datanet.quality import Rules
from threat_intel import data
from threat_intel.attack import procedures, read
from threat_intel.vendors import VENDORS, procedures_by_vendor

SCHEMA = RecordSchema(
    (
        Field(name="text", required=True, max_length=4000),
        Field(name="tactic", required=True, allowed_values=data.TACTICS),
        Field(name="source", max_length=500),
    ),
    "Report: {text}\nTactic:",
    " {tactic}",
)
RULES = Rules(SCHEMA, QualityPolicy(), None)
ITEM = "A man is sitting on a roof. He starts pulling up roofing on the roof of a barn with his hands."


def test_texts_are_whole_and_without_marks() -> None:
    assert len(procedures()) == 11_583
    for procedure in procedures():
        assert not procedure.text.endswith("...")
        assert not any(mark in procedure.text for mark in ("(Citation", "](http", "<code>", "  ", "\n"))


@pytest.mark.parametrize(
    ("description", "text", "source"),
    [
        (
            "[Emotet](https://attack.mitre.org/software/S0367) has used <code>cmd</code> to run tasks.(Citation: ESET A)",
            "Emotet has used cmd to run tasks.",
            "ESET A",
        ),
        (
            "Emotet has used cmd to run many tasks.(Citation: Palo Alto Share...",
            "Emotet has used cmd to run many tasks.",
            "Palo Alto Share",
        ),
    ],
)
def test_marks_are_taken_off_and_the_report_is_named(description: str, text: str, source: str) -> None:
    procedure = read(description, "execution")
    assert procedure is not None
    assert (procedure.text, procedure.source) == (text, source)


@pytest.mark.parametrize(
    "description", ["Emotet has used cmd to run tas...", "It ran.(Citation: A)", "It has no source at all."]
)
def test_cut_short_and_uncited_texts_are_left_out(description: str) -> None:
    assert read(description, "execution") is None


def test_eight_vendors_have_hundreds_of_texts_each() -> None:
    assert [identifier for identifier, _ in data.contributors()] == [vendor.id for vendor in VENDORS]
    counts = {vendor.id: len(procedures_by_vendor()[vendor.id]) for vendor in VENDORS}
    assert len(counts) == 8
    assert min(counts.values()) > 400


def test_the_same_arguments_give_the_same_records_and_fewer_are_a_beginning() -> None:
    many, few = data.records_for("eset", 100), data.records_for("eset", 40)
    assert many[:40] == few == data.records_for("eset", 40)
    assert data.records_for("eset", 40, seed=1) != few
    with pytest.raises(ValueError, match="has"):
        data.records_for("eset", 100_000)


def test_rare_tactics_are_not_lost() -> None:
    records = [json.loads(r) for vendor, _ in data.contributors() for r in data.records_for(vendor, 130)]
    counts = Counter(record["tactic"] for record in records)
    assert set(counts) == set(data.TACTICS)
    assert max(counts.values()) < 100


def test_every_vendors_record_is_accepted_by_the_rules() -> None:
    for vendor, _ in data.contributors():
        refused = [RULES.judge(record).rejection for record in data.records_for(vendor, 130)]
        assert [each for each in refused if each] == []


def test_copies_pass_the_rules_and_end_up_in_others_clusters() -> None:
    originals = [record for vendor, _ in data.contributors() for record in data.records_for(vendor, 25)]
    copies = data.copier_records(200, per_vendor=25)
    assert not set(copies) & set(originals)
    assert all(RULES.judge(copy).rejection is None for copy in copies)
    texts = [json.loads(record)["text"] for record in originals + copies]
    assert set(texts[len(originals) :]).isdisjoint(texts[: len(originals)])
    clusters = cluster((Document(str(n), n, text) for n, text in enumerate(texts)), 0.7)
    found = [int(clusters[str(n)]) < len(originals) for n in range(len(originals), len(texts))]
    assert sum(found) == 200


def test_copies_of_what_was_not_sent_are_refused() -> None:
    with pytest.raises(ValueError, match="25 records of each"):
        data.copier_records(200, per_vendor=24)


def test_careless_records_break_every_kind_of_rule_and_some_are_good(tmp_path: Path) -> None:
    gate_items = tmp_path / "items.jsonl"
    gate_items.write_text(json.dumps({"suite": "hellaswag", "id": "1", "text": ITEM}) + "\n")
    rules = Rules(SCHEMA, QualityPolicy(), EvaluationItems(read_items(gate_items.read_bytes())))
    records = data.careless_records(60, gate_items=gate_items)
    refused = Counter(v.rejection.rule if v.rejection else "" for v in map(rules.judge, records))
    assert refused.pop("") == 12
    assert set(refused) == {
        "personal_data",
        "low_quality",
        "label_not_allowed",
        "unknown_field",
        "not_utf8",
        "too_short",
        "wrong_type",
        "too_large",
        "contamination",
    }
    assert records == data.careless_records(60, gate_items=gate_items)
