"""Suites are the same everywhere, and sample what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalstats.rules import Rule
from finetune.evaluation.domain import DomainSource, domain_suite
from finetune.evaluation.item import Item, in_order
from finetune.evaluation.packaged import arc_easy, english_texts, hellaswag
from finetune.evaluation.suites import RETAINED
from finetune.export_items import export
from identity.digest import digest_json
from identity.snapshot import SnapshotLine
from modelkit.prompt import PromptTemplate
from trainer.contract.evaluation import SUITES

PINNED = {
    "hellaswag": "sha256:2c82fd96127a6473fdb680d0fa9cd723397ae72cb1049a5d0243684ab8f6bc6d",
    "arc_easy": "sha256:1b2b040e408cc8e51e0969f982287a77b718f5e6f0e65df319136150cf308d63",
    "bits_per_byte": "sha256:7a2fb3582a2ea9dbf106cea44848411c4b70a6adbc67cda09e7a0011d0db2410",
}


def test_packaged_suites_have_their_published_sizes() -> None:
    assert len(hellaswag()) == 10_042
    assert len(arc_easy()) == 2_376


def test_hellaswag_items_read_as_sentences() -> None:
    first = hellaswag()[0]
    assert first.prompt == "Roof shingle removal: A man is sitting on a roof. He"
    assert first.options[first.gold] == " starts pulling up roofing on a roof."
    assert not any("[" in item.prompt and "]" in item.prompt for item in hellaswag()[:500])


def test_arc_items_ask_one_question() -> None:
    first = arc_easy()[0]
    assert first.prompt.startswith("Question: ")
    assert first.prompt.endswith("\nAnswer:")
    assert first.prompt.count("Question:") == 1


def test_english_texts_hold_both_registers_evenly_and_cluster_articles() -> None:
    texts = english_texts()
    novels = [item for item in texts if item.id.startswith("lambada-")]
    articles = [item for item in texts if item.id.startswith("squad-")]
    assert len(novels) == len(articles) > 250
    assert len({item.cluster for item in articles}) < len(articles) / 3
    assert len({item.options for item in texts}) == len(texts)


@pytest.mark.parametrize("name", sorted(RETAINED))
def test_item_ids_are_unique(name: str) -> None:
    ids = [item.id for item in RETAINED[name].source()]
    assert len(set(ids)) == len(ids)


def test_samples_are_pinned() -> None:
    """A changed digest is another suite: another version, which gate policies must be loosened to."""
    digests, versions = {}, {}
    for name, suite in RETAINED.items():
        whole = suite.whole(seed=0)
        digests[name], versions[name] = whole.first(20).digest, (whole.rule.value, whole.version)
    assert digests == PINNED
    assert versions == {name: (SUITES[name].rule, SUITES[name].version) for name in RETAINED}


def test_a_larger_sample_begins_with_the_smaller_and_ignores_source_order() -> None:
    items = [Item(id=str(number), cluster="", prompt="q", options=("a",), gold=0) for number in range(200)]
    assert in_order(items, 7) == in_order(items[::-1], 7) != in_order(items, 8)
    assert sorted(in_order(items, 7), key=lambda item: int(item.id)) == items
    suite = RETAINED["bits_per_byte"]
    assert suite.sample(30, 7) == suite.sample(100, 7).first(30)
    assert suite.sample(30, 7).family == suite.sample(100, 7).family != suite.sample(30, 8).family


def test_items_are_kept_in_the_form_their_digest_has() -> None:
    decomposed = "cafe\u0301"
    assert Item(id="1", cluster="", prompt=decomposed, options=(decomposed,), gold=0).options == (
        "caf\u00e9",
    )


def _line(record: dict[str, str], split: str = "held_out") -> SnapshotLine:
    digest = digest_json(record)
    return SnapshotLine(
        record_digest=digest,
        cluster=digest,
        split=split,
        contributor="datanets/d/contributors/c",
        record=record,
    )


def test_datanet_of_answers_is_measured_in_bits_per_byte() -> None:
    lines = tuple(
        _line({"q": f"Question {n}?", "a": f"An answer of its own, number {n}."}) for n in range(60)
    )
    suite = domain_suite([DomainSource(lines, PromptTemplate("{q}", " {a}"))], 0)
    assert suite.rule is Rule.BITS_PER_BYTE
    assert all(len(item.options) == 1 for item in suite.items)


def test_a_record_in_two_snapshots_is_asked_once() -> None:
    lines = tuple(_line({"q": f"Question {n}?", "a": "yes" if n % 2 else "no"}) for n in range(10))
    source = DomainSource(lines, PromptTemplate("{q}", " {a}"))
    assert len(domain_suite([source, source], 0).items) == 10


def test_export_writes_every_item_with_its_right_answer(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    count = export(path)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert count == len(lines) == sum(len(suite.source()) for suite in RETAINED.values())
    assert lines[0]["suite"] == "hellaswag"
    assert lines[0]["text"].endswith("He starts pulling up roofing on a roof.")
