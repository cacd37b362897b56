"""Settlement: every attributed answer is one leaf of one batch, and every batch is on the chain once."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from openledger.attribution.v1 import attribution_pb2
from openledger.audit.v1.audit_pb2 import (
    Batch,
    Ledger,
    RegisteredModelVersion,
    RegisteredSnapshot,
    SettledAnswer,
)
from openledger.settlement.v1 import settlement_pb2

from identity.digest import digest_to_bytes
from identity.evm_merkle import EvmMerkleTree
from identity.leaf import AttributionLeaf, name_hash
from openledger_client.errors import OpenLedgerError
from openledger_client.services import CHAIN_RELAY
from openledger_ops.reconcile.answers import Attributed
from openledger_ops.reconcile.book import Book
from openledger_ops.reconcile.consumers import Consumers
from openledger_ops.reconcile.contracts import ZERO, Contracts
from openledger_ops.reconcile.events import Published
from openledger_ops.reconcile.facts import Facts, Objects
from servicekit.eventlog.topics import ATTRIBUTION_SCORED_V1

SETTLED, LEAF, BATCH = "answer settled", "answer in exactly one batch", "batch intact"
ON_CHAIN, REGISTERED = "batch on chain", "snapshot and version on chain"
_CERTAIN = (
    settlement_pb2.BATCH_STATE_COMMITTED,
    settlement_pb2.BATCH_STATE_SETTLED,
    settlement_pb2.BATCH_STATE_FINAL,
)


def check(
    book: Book,
    consumers: Consumers,
    objects: Objects,
    scored: Sequence[Published[Attributed]],
    contracts: Contracts | None,
) -> None:
    """Checks every attributed answer, batch and registration. Without contracts, what is on the chain is left out."""
    facts = consumers.facts[CHAIN_RELAY]
    consumers.check(book, ATTRIBUTION_SCORED_V1, attribution_pb2.AttributionScored, scored)
    answers = sorted(facts.of(SettledAnswer), key=lambda answer: answer.position)
    batches = facts.of(Batch)
    _check_settled(book, consumers, answers, scored)
    of_batch: Mapping[int, list[SettledAnswer]] = defaultdict(list)
    for answer in answers:
        if answer.HasField("batch_seq"):
            of_batch[answer.batch_seq].append(answer)
        else:
            book.waiting(LEAF, answer.inference, "is in no batch yet")
    ledger = next(iter(facts.of(Ledger)), None)
    _check_members(book, ledger, objects, batches, of_batch)
    _check_order(book, ledger, batches)
    for seq in of_batch.keys() - {batch.seq for batch in batches}:
        book.lost(BATCH, f"batches/{seq}", "answers name it, but there is no such batch")
    if contracts is not None:
        _check_chain(book, contracts, batches)
        _check_registered(book, contracts, facts)


def _check_settled(
    book: Book,
    consumers: Consumers,
    answers: Sequence[SettledAnswer],
    scored: Sequence[Published[Attributed]],
) -> None:
    """Every answer that was attributed is settled by that record, and no other answer is."""
    digests = {answer.inference: answer.record_digest for answer in answers}
    book.saw(SETTLED, len(scored))
    for each in scored:
        found = digests.get(each.kept.inference)
        if found != each.kept.digest and consumers.handled(CHAIN_RELAY, ATTRIBUTION_SCORED_V1, each):
            book.lost(SETTLED, each.kept.inference, f"settled by {found}, the event says {each.kept.digest}")
    if scored:
        for inference in digests.keys() - {each.kept.inference for each in scored}:
            book.doubled(SETTLED, inference, "settled, but there is no event about its attribution")


def _check_members(
    book: Book,
    ledger: Ledger | None,
    objects: Objects,
    batches: Sequence[Batch],
    of_batch: Mapping[int, Sequence[SettledAnswer]],
) -> None:
    """A batch holds the answers that its data object and its root say."""
    leaves: Counter[str] = Counter()
    for batch in batches:
        members, name = of_batch.get(batch.seq, []), f"batches/{batch.seq}"
        book.saw(BATCH, 1)
        book.saw(LEAF, len(members))
        book.same(BATCH, name, len(members), batch.event_count, "answers")
        for position, answer in enumerate(members, batch.first_event):
            if answer.event_index != position:
                book.lost(LEAF, answer.inference, f"is event {answer.event_index}, expected {position}")
        try:
            data = json.loads(objects.get(CHAIN_RELAY, batch.data_digest))
            stored = [str(event["inference"]) for event in data["events"]]
        except (OpenLedgerError, ValueError, KeyError, TypeError) as error:
            book.lost(BATCH, name, f"data object: {error}")
            continue
        leaves.update(stored)
        for inference in set(stored) ^ {answer.inference for answer in members}:
            book.lost(LEAF, inference, f"the data of batch {batch.seq} and the database differ about it")
        if members and (ledger is None or _root(ledger, batch, members) != batch.root):
            book.lost(BATCH, name, "its answers have another root")
    for inference, count in leaves.items():
        if count > 1:
            book.doubled(LEAF, inference, f"is in the data of batches {count} times")


def _check_order(book: Book, ledger: Ledger | None, batches: Sequence[Batch]) -> None:
    """No number of a batch or an event is left out or given twice, up to those that the next batch gets."""
    following = [(batch.seq, batch.first_event) for batch in batches[1:]]
    if ledger is not None and batches:
        following.append((ledger.next_seq, ledger.next_event))
    for batch, (seq, first_event) in zip(batches, following, strict=False):
        expected = (batch.seq + 1, batch.first_event + batch.event_count)
        if (seq, first_event) != expected:
            why = f"batch {expected[0]} from event {expected[1]} should follow, batch {seq} from {first_event} does"
            book.lost(BATCH, f"batches/{batch.seq}", why)


def _root(ledger: Ledger, batch: Batch, members: Sequence[SettledAnswer]) -> bytes:
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


def _check_chain(book: Book, contracts: Contracts, batches: Sequence[Batch]) -> None:
    """Every batch is on the chain with its root; the chain has no other."""
    next_seq, known = contracts.next_seq(), {batch.seq for batch in batches}
    book.saw(ON_CHAIN, len(batches))
    for batch in batches:
        name = f"batches/{batch.seq}"
        if batch.seq < next_seq:
            root = contracts.root(batch.seq)
            if root != batch.root:
                book.lost(ON_CHAIN, name, f"the ledger has root 0x{root.hex()}")
        elif batch.state in _CERTAIN:
            state = settlement_pb2.BatchState.Name(batch.state).removeprefix("BATCH_STATE_").lower()
            book.lost(ON_CHAIN, name, f"it is {state}, but the ledger does not have it")
        else:
            book.waiting(ON_CHAIN, name, "is not committed yet")
    if batches:
        for seq in set(range(batches[0].seq, next_seq)) - known:
            book.doubled(ON_CHAIN, f"batches/{seq}", "the ledger has it, the database does not")
        committed = sum(batch.event_count for batch in batches if batch.seq < next_seq)
        expected = committed + batches[0].first_event
        book.same(ON_CHAIN, "events", contracts.next_event(), expected, "events on the ledger")


def _check_registered(book: Book, contracts: Contracts, facts: Facts) -> None:
    snapshots, models = facts.of(RegisteredSnapshot), facts.of(RegisteredModelVersion)
    book.saw(REGISTERED, len(snapshots) + len(models))
    for snapshot in snapshots:
        found = contracts.dataset_root(name_hash(snapshot.name))
        if found != digest_to_bytes(snapshot.root):
            _not_registered(book, snapshot.name, wrong=snapshot.final or found != ZERO)
    for model in models:
        report = digest_to_bytes(model.report_digest) if model.report_digest else ZERO
        if contracts.model(digest_to_bytes(model.version_digest)) != (report, model.state):
            _not_registered(book, model.version_digest, wrong=model.final)


def _not_registered(book: Book, thing: str, wrong: bool) -> None:
    if wrong:
        book.lost(REGISTERED, thing, "the registry has something else")
    else:
        book.waiting(REGISTERED, thing, "is not registered yet")
