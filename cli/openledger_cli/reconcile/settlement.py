"""Settlement: every attributed answer is one leaf of one batch, and every batch is on the chain once."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from sqlalchemy import Row

from identity.digest import digest_to_bytes
from identity.evm_merkle import EvmMerkleTree
from identity.leaf import AttributionLeaf, name_hash
from openledger_cli.reconcile.answers import Attributed
from openledger_cli.reconcile.book import Book
from openledger_cli.reconcile.deliveries import Deliveries
from openledger_cli.reconcile.events import Told
from openledger_cli.reconcile.onchain import ZERO, OnChain
from openledger_cli.reconcile.rows import Rows
from servicekit.errors import DomainError
from servicekit.objects import ObjectStore
from servicekit.topics import ATTRIBUTION_SCORED_V1

SETTLED, LEAF, BATCH = "answer settled", "answer one leaf of one batch", "batch whole"
ON_CHAIN, REGISTERED = "batch on chain", "snapshot and version on chain"
_CERTAIN = ("COMMITTED", "SETTLED", "FINAL")


def check(
    book: Book,
    rows: Rows,
    deliveries: Deliveries,
    objects: ObjectStore,
    scored: Sequence[Told[Attributed]],
    chain: OnChain | None,
) -> None:
    """Judges every attributed answer, batch and registration. Without a chain, what stands on it is left out."""
    deliveries.check(book, ATTRIBUTION_SCORED_V1, scored, ["chain_relay"])
    answers = rows.all("SELECT * FROM scored_answer ORDER BY position")
    batches = rows.all("SELECT * FROM batch ORDER BY seq")
    _check_settled(book, deliveries, answers, scored)
    of_batch: Mapping[int, list[Row[Any]]] = defaultdict(list)
    for answer in answers:
        if answer.batch_seq is None:
            book.waiting(LEAF, answer.inference, "is in no batch yet")
        else:
            of_batch[answer.batch_seq].append(answer)
    _check_batches(book, rows, objects, batches, of_batch)
    if chain is not None:
        _check_chain(book, chain, batches)
        _check_registered(book, chain, rows)


def _check_settled(
    book: Book, deliveries: Deliveries, answers: Sequence[Row[Any]], scored: Sequence[Told[Attributed]]
) -> None:
    """Whoever was attributed is settled by that record, and nobody else."""
    digests = {row.inference: row.record_digest for row in answers}
    book.saw(SETTLED, len(scored))
    for each in scored:
        if deliveries.effective("chain_relay", each) and digests.get(each.kept.inference) != each.kept.digest:
            book.lost(SETTLED, each.kept.inference, f"settled by {digests.get(each.kept.inference)}")
    if scored:
        for inference in digests.keys() - {each.kept.inference for each in scored}:
            book.doubled(SETTLED, inference, "settled, but no attribution was told")


def _check_batches(
    book: Book,
    rows: Rows,
    objects: ObjectStore,
    batches: Sequence[Row[Any]],
    of_batch: Mapping[int, Sequence[Row[Any]]],
) -> None:
    """A batch holds the answers that its data object and its root say, and no number is left out or given twice."""
    ledger = next(iter(rows.all("SELECT address, chain_id, next_seq, next_event FROM ledger")), None)
    leaves: Counter[str] = Counter()
    for batch in batches:
        members = of_batch.get(batch.seq, [])
        book.saw(BATCH, 1)
        book.saw(LEAF, len(members))
        book.same(BATCH, f"batches/{batch.seq}", len(members), batch.event_count, "answers")
        for place, answer in enumerate(members):
            if answer.event_index != batch.first_event + place:
                book.lost(LEAF, answer.inference, f"is event {answer.event_index}, its place is another")
        try:
            events = json.loads(objects.get_bytes(batch.data_digest))["events"]
        except (DomainError, ValueError, KeyError) as error:
            book.lost(BATCH, f"batches/{batch.seq}", f"data object: {error}")
            continue
        leaves.update(event["inference"] for event in events)
        for inference in {event["inference"] for event in events} ^ {answer.inference for answer in members}:
            book.lost(LEAF, inference, f"the data of batch {batch.seq} and the database differ about it")
        if members and _root(ledger, batch, members) != bytes(batch.root):
            book.lost(BATCH, f"batches/{batch.seq}", "its answers have another root")
    for inference, count in leaves.items():
        if count > 1:
            book.doubled(LEAF, inference, f"stands in {count} places of batches' data")
    for one, other in pairwise([*batches, *([ledger] if ledger and batches else [])]):
        follows = (one.seq + 1, one.first_event + one.event_count)
        if follows != _numbers(other):
            book.lost(BATCH, f"batches/{one.seq}", f"{follows} should follow it, {_numbers(other)} does")
    for seq in of_batch.keys() - {batch.seq for batch in batches}:
        book.lost(BATCH, f"batches/{seq}", "answers name it, but there is no such batch")


def _numbers(row: Row[Any]) -> tuple[int, int]:
    """What a batch, or the ledger for the next one, says: its number and that of its first event."""
    return (row.seq, row.first_event) if hasattr(row, "seq") else (row.next_seq, row.next_event)


def _root(ledger: Any, batch: Row[Any], members: Sequence[Row[Any]]) -> bytes:
    leaves = [
        AttributionLeaf(
            chain_id=ledger.chain_id,
            ledger=ledger.address,
            batch_seq=batch.seq,
            event_index=answer.event_index,
            inference=answer.inference,
            model_version_digest=answer.model_digest,
            report_digest=answer.report_digest,
            record_digest=answer.record_digest,
            fee_paid=int(answer.fee),
        ).hash()
        for answer in members
    ]
    return EvmMerkleTree(leaves).root


def _check_chain(book: Book, chain: OnChain, batches: Sequence[Row[Any]]) -> None:
    """Every batch is on the chain with its root; the chain has no other."""
    next_seq, known = chain.next_seq(), {batch.seq for batch in batches}
    book.saw(ON_CHAIN, len(batches))
    for batch in batches:
        name = f"batches/{batch.seq}"
        if batch.seq < next_seq:
            if chain.root(batch.seq) != bytes(batch.root):
                book.lost(ON_CHAIN, name, f"the ledger holds root 0x{chain.root(batch.seq).hex()}")
        elif batch.state in _CERTAIN:
            book.lost(ON_CHAIN, name, f"it is {batch.state.lower()}, but the ledger does not have it")
        else:
            book.waiting(ON_CHAIN, name, "is not committed yet")
    if batches:
        for seq in set(range(batches[0].seq, next_seq)) - known:
            book.doubled(ON_CHAIN, f"batches/{seq}", "the ledger has it, the database does not")
        committed = (
            sum(batch.event_count for batch in batches if batch.seq < next_seq) + batches[0].first_event
        )
        book.same(ON_CHAIN, "events", chain.next_event(), committed, "events on the ledger")


def _check_registered(book: Book, chain: OnChain, rows: Rows) -> None:
    datasets = rows.all("SELECT name, root, final FROM registered_dataset")
    models = rows.all("SELECT version_digest, report_digest, state, final FROM registered_model")
    book.saw(REGISTERED, len(datasets) + len(models))
    for row in datasets:
        found = chain.dataset_root(name_hash(row.name))
        if found != digest_to_bytes(row.root):
            _not_there(book, row.name, wrong=row.final or found != ZERO)
    for row in models:
        report = digest_to_bytes(row.report_digest) if row.report_digest else ZERO
        if chain.model(digest_to_bytes(row.version_digest)) != (report, row.state):
            _not_there(book, row.version_digest, wrong=bool(row.final))


def _not_there(book: Book, thing: str, wrong: bool) -> None:
    if wrong:
        book.lost(REGISTERED, thing, "the registry holds something else")
    else:
        book.waiting(REGISTERED, thing, "is not registered yet")
