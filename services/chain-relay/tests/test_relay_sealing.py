"""A batch's data object is all that is needed to make its root and its sums again."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from chain_relay.answers import Terms, record_answer
from chain_relay.chain import LedgerState
from chain_relay.convert import attributed_answer
from chain_relay.sealing import open_ledger, seal
from chain_relay.store import answers as settled_answers
from chain_relay.store import batches as stored_batches
from chain_relay.store.tables import Batch, Earning, ScoredAnswer
from identity import evm_merkle
from identity.leaf import AttributionLeaf
from openledger_testing import attributed_answers
from openledger_testing.relay_rig import FakeRig
from servicekit.database import engine as open_engine
from servicekit.database import migrate, reading, run_in_transaction, transaction
from servicekit.errors import FailedPrecondition, StartupError


def batches(rig: FakeRig) -> list[Batch]:
    with reading(rig.engine) as session:
        return list(session.scalars(select(Batch).order_by(Batch.seq)))


def test_the_data_object_gives_the_root_and_the_sums(fake_rig: FakeRig) -> None:
    fake_rig.feed(9)
    fake_rig.relay.seal_now()
    (batch,) = batches(fake_rig)
    data = json.loads(fake_rig.objects.get_bytes(batch.data_digest))
    leaves = [
        AttributionLeaf(
            chain_id=data["chain_id"],
            ledger=data["ledger"],
            batch_seq=data["seq"],
            event_index=data["first_event"] + n,
            inference=event["inference"],
            model_version_digest=event["model_digest"],
            report_digest=event["report_digest"],
            record_digest=event["record_digest"],
            fee_paid=int(event["fee"]),
        ).hash()
        for n, event in enumerate(data["events"])
    ]
    assert evm_merkle.EvmMerkleTree(leaves).root == batch.root
    assert sum(int(event["fee"]) for event in data["events"]) == batch.fee_total
    payouts = sum(int(part["amount"]) for event in data["events"] for part in event["payouts"])
    assert payouts == batch.payout_total == batch.fee_total - batch.dust
    with reading(fake_rig.engine) as session:
        assert sum(row.amount for row in session.scalars(select(Earning))) == payouts


@pytest.mark.parametrize(("arrivals", "size"), [([1], 1), ([7, 1, 5], 4), ([2, 2, 2], 3), ([8], 8)])
def test_events_are_numbered_without_gap_over_all_batches(
    fake_rig: FakeRig, arrivals: list[int], size: int
) -> None:
    fake_rig.restart(batch_max_events=size)
    for count in arrivals:
        fake_rig.feed(count)
        while fake_rig.relay.seal_now():
            pass
    expected = 0
    for number, batch in enumerate(batches(fake_rig)):
        assert (batch.seq, batch.first_event) == (number, expected)
        assert 1 <= batch.event_count <= size
        expected += batch.event_count
    assert expected == sum(arrivals)


def test_answers_that_arrive_while_batches_are_sealed_are_in_exactly_one(fake_rig: FakeRig) -> None:
    settings = fake_rig.settings
    terms = Terms(settings.rates, settings.split, settings.accounts)
    events = [attributed_answers.scored() for _ in range(24)]

    def arrive(part: int) -> None:
        for event in events[part::2]:
            run_in_transaction(
                fake_rig.engine,
                lambda session, event=event: record_answer(session, attributed_answer(event), terms),
                50,
            )

    with ThreadPoolExecutor(2) as threads:
        arrivals = [threads.submit(arrive, part) for part in range(2)]
        while not all(arrival.done() for arrival in arrivals):
            fake_rig.relay.seal_now()
        for arrival in arrivals:
            arrival.result()
    fake_rig.relay.seal_now()
    with reading(fake_rig.engine) as session:
        answers = session.scalars(select(ScoredAnswer).order_by(ScoredAnswer.event_index)).all()
    assert [answer.event_index for answer in answers] == list(range(24))
    assert sum(batch.event_count for batch in batches(fake_rig)) == 24
    assert sum(batch.fee_total for batch in batches(fake_rig)) == sum(answer.fee for answer in answers)


def test_a_batch_is_sealed_when_it_is_full_or_old_and_not_before(fake_rig: FakeRig) -> None:
    fake_rig.restart(batch_max_events=3, batch_max_age_s=60.0)
    fake_rig.feed(2)
    fake_rig.relay.step()
    assert batches(fake_rig) == []
    fake_rig.feed(2)
    fake_rig.relay.step()
    assert [batch.event_count for batch in batches(fake_rig)] == [3]
    fake_rig.later += fake_rig.later.__class__(seconds=61)
    fake_rig.relay.step()
    assert [batch.event_count for batch in batches(fake_rig)] == [3, 1]


def test_nothing_waiting_makes_no_batch(fake_rig: FakeRig) -> None:
    assert fake_rig.relay.seal_now() == ""


def test_an_answer_that_waits_has_no_proof_yet(fake_rig: FakeRig) -> None:
    (event,) = fake_rig.feed(1)
    with reading(fake_rig.engine) as session, pytest.raises(FailedPrecondition) as caught:
        settled_answers.inclusion(session, event.attribution.inference)
    assert caught.value.reason == "NOT_IN_A_BATCH"


def test_a_new_database_continues_where_the_ledger_is(database_url: str) -> None:
    engine = open_engine(database_url)
    migrate(engine, "chain_relay")
    with transaction(engine) as session:
        open_ledger(session, 31337, "0x" + "11" * 20, LedgerState(4, 900))
        assert seal(session, None, 1) is None  # type: ignore[arg-type]
        ledger = stored_batches.ledger(session)
        assert (ledger.next_seq, ledger.next_event) == (4, 900)


def test_a_database_of_another_ledger_is_refused(fake_rig: FakeRig) -> None:
    with transaction(fake_rig.engine) as session, pytest.raises(StartupError, match="belongs to ledger"):
        open_ledger(session, 31337, "0x" + "99" * 20, LedgerState(0, 0))
