"""`openledger reconcile` finds and names a promotion history that was changed behind the service."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from openledger.audit.v1.audit_pb2 import Fact, FactsPage, ModelVersion
from openledger.trainer.v1 import trainer_pb2 as pb

from identity.digest import canonical_json, sha256_bytes
from openledger_client.services import TRAINER
from openledger_ops.reconcile import promotions
from openledger_ops.reconcile.book import Book
from openledger_ops.reconcile.facts import Facts

MODEL = "models/m"


def history(length: int) -> list[pb.Promotion]:
    """A model's entries as the trainer has them: each version is served in turn."""
    found: list[pb.Promotion] = []
    for number in range(1, length + 1):
        content = {
            "model": MODEL,
            "number": number,
            "previous": found[-1].hash if found else "",
            "version": f"{MODEL}/versions/{number}",
            "retired": f"{MODEL}/versions/{number - 1}" if found else "",
            "kind": "passed",
            "report": "sha256:" + "0" * 64,
        }
        found.append(
            pb.Promotion(
                name=f"{MODEL}/promotions/{number}",
                hash=sha256_bytes(canonical_json(content)),
                canonical_json=canonical_json(content),
                model_version=f"{MODEL}/versions/{number}",
                report_digest="sha256:" + "0" * 64,
            )
        )
    return found


def findings(entries: list[pb.Promotion], served: int = 3) -> list[str]:
    """What reconciliation says of these entries where version `served` is promoted."""
    facts = [
        Fact(
            model_version=ModelVersion(
                name=f"{MODEL}/versions/{number}",
                state=pb.MODEL_VERSION_STATE_PROMOTED if number == served else pb.MODEL_VERSION_STATE_RETIRED,
            )
        )
        for number in (1, 2, 3)
    ]
    page = FactsPage(facts=[*facts, *(Fact(promotion=entry) for entry in entries)])
    book = Book()
    promotions.check(book, Facts(TRAINER, [page]))
    assert book.checked == {promotions.HISTORY: len(entries)}
    return [f"{finding.thing}: {finding.why}" for finding in book.findings]


def test_a_whole_history_is_no_finding() -> None:
    assert findings(history(3)) == []


def another_report(entries: list[pb.Promotion]) -> None:
    content = json.loads(entries[1].canonical_json) | {"report": "sha256:" + "1" * 64}
    entries[1].canonical_json = canonical_json(content)


def another_report_with_its_hash(entries: list[pb.Promotion]) -> None:
    another_report(entries)
    entries[1].report_digest = "sha256:" + "1" * 64
    entries[1].hash = sha256_bytes(entries[1].canonical_json)


def unreadable(entries: list[pb.Promotion]) -> None:
    entries[0].canonical_json = b"{"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (another_report, "promotions/2: its content has the hash"),
        (another_report_with_its_hash, "promotions/3: follows"),
        (lambda entries: entries.pop(1), "entry 3 of models/m in place of entry 2"),
        (lambda entries: entries.pop(), "the last entry serves models/m/versions/2"),
        (lambda entries: entries.clear(), "the last entry serves nothing"),
        (unreadable, "an entry cannot be read"),
    ],
)
def test_a_broken_history_is_named(change: Callable[[list[pb.Promotion]], object], said: str) -> None:
    entries = history(3)
    change(entries)
    (found,) = findings(entries)
    assert found.startswith("models/m: ")
    assert said in found
