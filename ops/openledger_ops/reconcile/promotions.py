"""Promotion histories: each is one chain of hashes, from a model's first entry to the version that it serves."""

from __future__ import annotations

import json
from collections import defaultdict

from openledger.audit.v1.audit_pb2 import ModelVersion
from openledger.trainer.v1.trainer_pb2 import MODEL_VERSION_STATE_PROMOTED, Promotion

from openledger_ops.promotions import broken
from openledger_ops.reconcile.book import Book
from openledger_ops.reconcile.facts import Facts

HISTORY = "promotion history unbroken"


def check(book: Book, trainer: Facts) -> None:
    """Recomputes the chain of every model that serves a version, or did."""
    served = {
        each.name.rpartition("/versions/")[0]: each.name
        for each in trainer.of(ModelVersion)
        if each.state == MODEL_VERSION_STATE_PROMOTED
    }
    histories: dict[str, list[Promotion]] = defaultdict(list)
    for entry in trainer.of(Promotion):
        histories[entry.name.rpartition("/promotions/")[0]].append(entry)
    book.saw(HISTORY, sum(map(len, histories.values())))
    for model in sorted(histories.keys() | served.keys()):
        try:
            why = broken([_with_previous(entry) for entry in histories[model]], served.get(model, ""))
        except (ValueError, KeyError, TypeError) as error:
            book.invalid(HISTORY, model, f"an entry cannot be read: {error!r}")
        else:
            if why:
                book.lost(HISTORY, model, why)


def _with_previous(entry: Promotion) -> Promotion:
    """Returns the entry with the hash that its content names: a row has it nowhere else."""
    complete = Promotion()
    complete.CopyFrom(entry)
    complete.previous_hash = json.loads(entry.canonical_json)["previous"]
    return complete
