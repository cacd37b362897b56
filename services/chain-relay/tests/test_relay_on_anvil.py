"""The relay on a real chain: committed once whatever dies, proven by the contract, paid by proof."""

from __future__ import annotations

from typing import Any

import pytest
import settled
from relay_rig import AnvilRig
from sqlalchemy import select
from web3 import Web3

from chain_relay import rewards, store
from chain_relay.chain import LedgerState
from chain_relay.tables import BatchState, RewardRoot, RewardRootState, SignedTransaction
from servicekit.database import reading

pytestmark = pytest.mark.server


def committed_count(rig: AnvilRig) -> int:
    """Commitments in the chain's log."""
    ledger = rig.relay._chain._contracts["ledger"]  # type: ignore[attr-defined]
    return len(ledger.events.Committed().get_logs(from_block=0))


def on_ledger(rig: AnvilRig) -> LedgerState:
    latest = rig.chain.block("latest")
    assert latest is not None
    return rig.chain.ledger(latest)


def test_a_batch_goes_from_sealed_to_final_and_each_state_has_its_time(rig: AnvilRig) -> None:
    rig.feed(7)
    rig.relay.seal_now()
    assert rig.batch(0).state is BatchState.SEALED
    rig.relay.step()
    assert rig.batch(0).state is BatchState.SUBMITTED
    rig.mine()
    batch = rig.batch(0)
    assert batch.state is BatchState.COMMITTED
    assert 50_000 < batch.gas_used < 80_000
    rig.mine()
    assert rig.batch(0).state is BatchState.SETTLED
    rig.mine()
    assert rig.batch(0).state is BatchState.FINAL
    assert on_ledger(rig) == LedgerState(1, 7)


def test_the_contract_verifies_every_answers_proof_and_no_other_leaf(rig: AnvilRig) -> None:
    events = rig.feed(5)
    rig.relay.seal_now()
    rig.relay.step()
    rig.mine()
    verify = rig.chain._contracts["ledger"].functions.verify  # type: ignore[attr-defined]
    with reading(rig.engine) as session:
        for event in events:
            found = store.inclusion(session, event.attribution.inference)
            assert found.leaf.record_digest == event.attribution.digest
            assert verify(0, found.leaf.hash(), found.proof).call()
            assert not verify(0, b"\x01" * 32, found.proof).call()


@pytest.mark.parametrize(
    ("method", "after"),
    [("estimate", False), ("estimate", True), ("send", False), ("send", True)],
    ids=[
        "after seal, before signing",
        "before the bytes are kept",
        "after signing, before sending",
        "after sending",
    ],
)
def test_killed_between_any_two_steps_it_commits_once(rig: AnvilRig, method: str, after: bool) -> None:
    rig.feed(3)
    rig.relay.seal_now()
    rig.restart()
    rig.die(method, after=after)
    for _ in range(4):
        rig.relay.step()
        rig.mine()
    assert rig.batch(0).state is BatchState.FINAL
    assert committed_count(rig) == 1
    assert on_ledger(rig) == LedgerState(1, 3)


def test_killed_after_every_step_of_a_whole_run_nothing_is_lost_or_twice(rig: AnvilRig) -> None:
    for _ in range(3):
        rig.feed(2)
        rig.relay.seal_now()
    for method in ("block", "ledger", "nonce", "estimate", "fee_quote", "send", "receipt", "commitment") * 3:
        try:
            rig.die(method, after=True)
        except AssertionError:
            rig.restart()  # that step had nothing to ask there
        rig.node.mine()
    for _ in range(6):
        rig.relay.step()
        rig.mine()
    assert [rig.batch(seq).state for seq in range(3)] == [BatchState.FINAL] * 3
    assert committed_count(rig) == 3


def test_a_reorg_moves_a_batch_back_and_the_same_bytes_commit_it_again(rig: AnvilRig) -> None:
    rig.feed(4)
    rig.relay.seal_now()
    rig.relay.step()
    rig.mine()
    first = rig.batch(0)
    rig.node.reorg(1)
    rig.relay.step()
    moved = rig.batch(0)
    assert (moved.state, moved.reorg_count, moved.transaction_hash) == (BatchState.SEALED, 1, "")
    rig.mine()
    again = rig.batch(0)
    assert again.state is BatchState.COMMITTED
    assert again.transaction_hash == first.transaction_hash
    assert again.block_hash != first.block_hash
    assert committed_count(rig) == 1
    with reading(rig.engine) as session:
        assert len(session.scalars(select(SignedTransaction)).all()) == 1


def test_a_reorg_that_keeps_the_commitment_is_seen_by_its_block(rig: AnvilRig) -> None:
    rig.feed(4)
    rig.relay.seal_now()
    rig.relay.step()
    rig.mine()
    first = rig.batch(0)
    with reading(rig.engine) as session:
        raw = session.scalars(select(SignedTransaction.raw)).one()
    rig.node.rpc("anvil_reorg", 1, [["0x" + raw.hex(), 0]])
    rig.relay.step()
    again = rig.batch(0)
    assert (again.state, again.reorg_count) == (BatchState.COMMITTED, 1)
    assert again.block_hash != first.block_hash


def test_a_transaction_that_the_node_forgot_is_sent_again(rig: AnvilRig) -> None:
    rig.feed(1)
    rig.relay.seal_now()
    rig.relay.step()
    with reading(rig.engine) as session:
        sent = session.scalars(select(SignedTransaction.hash)).one()
    rig.node.rpc("anvil_dropTransaction", sent)
    rig.relay.step()
    rig.mine()
    assert rig.batch(0).transaction_hash == sent


def test_a_stuck_transaction_is_bumped_on_its_own_nonce(rig: AnvilRig) -> None:
    rig.feed(1)
    rig.relay.seal_now()
    rig.relay.step()
    rig.later += rig.later.__class__(seconds=31)
    rig.relay.step()
    with reading(rig.engine) as session:
        first, second = session.scalars(select(SignedTransaction).order_by(SignedTransaction.id)).all()
    assert first.nonce == second.nonce
    assert second.max_fee * 8 >= first.max_fee * 9
    rig.mine()
    assert rig.batch(0).transaction_hash == second.hash


def test_rewards_are_proposed_accepted_and_claimed_exactly(rig: AnvilRig) -> None:
    rig.feed(3)
    rig.relay.seal_now()
    rig.relay.step()
    rig.mine()
    rig.relay.make_reward_root()
    for _ in range(8):
        rig.mine()
        rig.later += rig.later.__class__(seconds=1)
        rig.node.rpc("evm_increaseTime", 1)
    with reading(rig.engine) as session:
        root = session.get_one(RewardRoot, 1)
        assert root.state is RewardRootState.ACCEPTED
        account = settled.ADDRESSES["eset"]
        found = rewards.reward_proof(
            session, rig.chain.chain_id, rig.chain.distributor_address, root, account
        )
        earned = {row.address: row.amount for row in store.earned(session) if row.address}
    assert found is not None
    cumulative, proof = found
    assert cumulative == earned[account] > 0
    claim(rig, account, cumulative, proof)
    assert token_balance(rig, account) == cumulative
    latest = rig.chain.block("latest")
    assert latest is not None
    assert rig.chain.claimed(account, latest) == cumulative


def claim(rig: AnvilRig, account: str, cumulative: int, proof: list[bytes]) -> None:
    """Anyone may send a claim; here a stranger with an unlocked account does."""
    rig.node.rpc("evm_setAutomine", True)
    distributor: Any = rig.chain._contracts["distributor"]  # type: ignore[attr-defined]
    sender = Web3.to_checksum_address(settled.TREASURY)
    distributor.functions.claim(account, cumulative, proof).transact({"from": sender})


def token_balance(rig: AnvilRig, account: str) -> int:
    token: Any = rig.chain._contracts["token"]  # type: ignore[attr-defined]
    return int(token.functions.balanceOf(account).call())
