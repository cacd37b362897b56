"""On a chain in memory and on anvil alike: every batch is committed once, in order, whatever dies and whatever forks."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from chain_relay.chain import LedgerState
from chain_relay.store import batches
from chain_relay.store.tables import BatchState, SignedTransaction
from openledger_testing.relay_rig import Rig
from servicekit.database import reading


def transactions(rig: Rig) -> list[SignedTransaction]:
    with reading(rig.engine) as session:
        return list(session.scalars(select(SignedTransaction).order_by(SignedTransaction.id)))


def seal(rig: Rig, count: int) -> None:
    rig.feed(count)
    rig.relay.seal_now()


def test_a_batch_goes_from_sealed_to_final_and_each_state_has_its_time(rig: Rig) -> None:
    seal(rig, 7)
    assert rig.batch(0).state is BatchState.SEALED
    rig.relay.step()
    assert rig.batch(0).state is BatchState.SUBMITTED
    for expected in (BatchState.COMMITTED, BatchState.SETTLED, BatchState.FINAL):
        rig.mine()
        assert rig.batch(0).state is expected
    assert rig.on_ledger() == LedgerState(1, 7)
    assert 50_000 < rig.batch(0).gas_used < 80_000
    with reading(rig.engine) as session:
        history = batches.history(session, 0)
    assert [change.state for change in history] == list(BatchState)
    assert [change.time for change in history] == sorted(change.time for change in history)


@pytest.mark.parametrize(
    ("method", "after"),
    [("estimate", False), ("estimate", True), ("send", False), ("send", True)],
    ids=["sealed", "priced", "signed and kept", "sent"],
)
def test_killed_between_any_two_steps_it_commits_once(rig: Rig, method: str, after: bool) -> None:
    seal(rig, 3)
    rig.die(method, after=after)
    for _ in range(4):
        rig.relay.step()
        rig.mine()
    assert rig.batch(0).state is BatchState.FINAL
    assert rig.commitments() == [0]
    assert rig.on_ledger() == LedgerState(1, 3)


def test_killed_at_every_question_to_the_chain_nothing_is_lost_or_twice(rig: Rig) -> None:
    for _ in range(3):
        seal(rig, 2)
    for method in ("block", "ledger", "nonce", "estimate", "fee_quote", "send", "receipt", "commitment") * 3:
        try:
            rig.die(method, after=True)
        except AssertionError:
            rig.restart()  # that step had nothing to ask there
        rig.mine()
    for _ in range(6):
        rig.relay.step()
        rig.mine()
    assert [rig.batch(seq).state for seq in range(3)] == [BatchState.FINAL] * 3
    assert rig.commitments() == [0, 1, 2]


def test_a_reorg_moves_a_batch_back_and_the_same_bytes_commit_it_again(rig: Rig) -> None:
    seal(rig, 4)
    rig.relay.step()
    rig.mine()
    first = rig.batch(0)
    rig.reorg(1)
    rig.relay.step()
    moved = rig.batch(0)
    assert (moved.state, moved.reorg_count, moved.transaction_hash) == (BatchState.SEALED, 1, "")
    rig.mine()
    again = rig.batch(0)
    assert again.state is BatchState.COMMITTED
    assert again.transaction_hash == first.transaction_hash
    assert again.block_hash != first.block_hash
    assert rig.commitments() == [0]
    assert len(transactions(rig)) == 1


def test_a_reorg_over_several_batches_commits_them_again_in_order(rig: Rig) -> None:
    for _ in range(3):
        seal(rig, 1)
    for _ in range(3):
        rig.relay.step()
        rig.mine()
    assert rig.commitments() == [0, 1, 2]
    rig.reorg(3)
    for _ in range(6):
        rig.relay.step()
        rig.mine()
    assert rig.commitments() == [0, 1, 2]
    assert [rig.batch(seq).state for seq in range(3)] == [BatchState.FINAL] * 3
    assert len(transactions(rig)) == 3


def test_a_reorg_that_keeps_the_commitment_is_seen_by_its_block(rig: Rig) -> None:
    seal(rig, 4)
    rig.relay.step()
    rig.mine()
    first = rig.batch(0)
    rig.reorg(1, keep=transactions(rig)[0].raw)
    rig.relay.step()
    again = rig.batch(0)
    assert (again.state, again.reorg_count) == (BatchState.COMMITTED, 1)
    assert again.block_hash != first.block_hash


def test_a_transaction_that_the_node_forgot_is_sent_again(rig: Rig) -> None:
    seal(rig, 1)
    rig.relay.step()
    rig.forget(transactions(rig)[0].hash)
    rig.relay.step()
    rig.mine()
    assert rig.batch(0).transaction_hash == transactions(rig)[0].hash


def test_a_stuck_transaction_is_raised_by_an_eighth_on_its_own_nonce(rig: Rig) -> None:
    seal(rig, 1)
    rig.relay.step()
    rig.later += timedelta(seconds=31)
    rig.relay.step()
    first, second = transactions(rig)
    assert first.nonce == second.nonce
    assert second.max_fee * 8 >= first.max_fee * 9
    assert second.priority_fee * 8 >= first.priority_fee * 9
    rig.mine()
    assert rig.batch(0).transaction_hash == second.hash
    assert rig.commitments() == [0]
