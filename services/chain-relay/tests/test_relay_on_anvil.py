"""What only the real contracts can say: proofs verify, rewards are paid to the unit, a second relay is fenced."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from web3 import Web3

from chain_relay import rewards
from chain_relay.chain import Call, CallReverts
from chain_relay.deploy import DeployPlan, check, deploy
from chain_relay.observer import LedgerConflict
from chain_relay.settings import Settings
from chain_relay.signer import Signed, Signer, Unsigned, open_signer
from chain_relay.store import answers, balances
from chain_relay.store.tables import RewardRoot, RewardRootState
from chain_relay.web3_chain import Web3Chain, connect
from openledger_testing import attributed_answers
from openledger_testing.anvil import Anvil
from openledger_testing.relay_rig import AnvilRig, Died
from servicekit.database import reading
from servicekit.errors import StartupError

pytestmark = pytest.mark.server


def test_the_contract_verifies_every_answers_proof_and_no_other_leaf(anvil_rig: AnvilRig) -> None:
    rig = anvil_rig
    events = rig.feed(5)
    rig.relay.seal_now()
    rig.relay.step()
    rig.mine()
    verify = rig.contract("ledger").functions.verify
    with reading(rig.engine) as session:
        for event in events:
            found = answers.inclusion(session, event.attribution.inference)
            assert found.leaf.record_digest == event.attribution.digest
            assert verify(0, found.leaf.hash(), found.proof).call()
            assert not verify(0, b"\x01" * 32, found.proof).call()


def test_rewards_are_proposed_accepted_and_claimed_exactly(anvil_rig: AnvilRig) -> None:
    rig = anvil_rig
    rig.feed(3)
    rig.relay.seal_now()
    rig.relay.step()
    rig.mine()
    rig.relay.make_reward_root()
    for _ in range(8):
        rig.mine()
        rig.later += timedelta(seconds=1)
        rig.node.rpc("evm_increaseTime", 1)
    account = attributed_answers.ADDRESSES["eset"]
    with reading(rig.engine) as session:
        root = session.get_one(RewardRoot, 1)
        assert root.state is RewardRootState.ACCEPTED
        assert balances.transaction_hashes(session, ["accept/1"])
        found = rewards.reward_proof(
            session, rig.chain.chain_id, rig.chain.distributor_address, root, account
        )
        earned = {row.address: row.amount for row in balances.earned(session) if row.address}
    assert found is not None
    cumulative, proof = found
    assert cumulative == earned[account] > 0
    rig.node.rpc("evm_setAutomine", True)
    # Anyone may send a claim; here a stranger does, and gets nothing by it.
    stranger = Web3.to_checksum_address(attributed_answers.TREASURY)
    rig.contract("distributor").functions.claim(account, cumulative, proof).transact({"from": stranger})
    balance_of = rig.contract("token").functions.balanceOf
    assert balance_of(account).call() == cumulative
    assert balance_of(stranger).call() == 0
    latest = rig.chain.block("latest")
    assert latest is not None
    assert rig.chain.claimed(account, latest) == cumulative


def test_another_relays_commitment_of_our_number_is_a_conflict_not_a_guess(anvil_rig: AnvilRig) -> None:
    rig = anvil_rig
    rig.feed(2)
    rig.relay.seal_now()
    ledger = rig.contract("ledger")
    ledger.functions.commit(0, 0, 2, b"\x07" * 32, b"\x08" * 32).transact({"from": rig.signer.address})
    rig.node.mine()
    with pytest.raises(LedgerConflict, match="batch 0"):
        rig.relay.step()


def test_a_refused_call_names_the_contracts_error(anvil_rig: AnvilRig) -> None:
    call = Call("ledger", "commit", (5, 0, 1, b"\x01" * 32, b"\x02" * 32))
    with pytest.raises(CallReverts, match="NotTheNextBatch"):
        anvil_rig.chain.estimate(call, anvil_rig.signer.address)


def test_one_event_in_its_own_transaction_costs_more_than_a_share_of_a_batch(anvil_rig: AnvilRig) -> None:
    assert 21_000 < anvil_rig.chain.baseline_gas(anvil_rig.signer.address) < 40_000


def test_deploying_again_finds_everything_in_place(anvil_rig: AnvilRig) -> None:
    rig = anvil_rig
    plan = DeployPlan(rig.settings.artifacts, reward_delay_s=2, funding=0)
    height = rig.w3.eth.block_number
    again = deploy(rig.w3, rig.signer, plan, rig.settings.state_dir / "again.json")
    assert (again.ledger, again.distributor) == (rig.deployment.ledger, rig.deployment.distributor)
    assert rig.w3.eth.block_number == height


def test_a_deployment_that_is_not_mined_ends_at_its_deadline(tmp_path: Path) -> None:
    signer = open_signer(31337, None, None, None)
    artifacts = Settings(auth_mode="development").artifacts
    with Anvil() as node:
        node.stop_mining()
        plan = DeployPlan(artifacts, reward_delay_s=2, funding=0, patience_s=0.5)
        with pytest.raises(StartupError, match=r"cannot deploy token: .* is not mined; .* within 0\.5 s"):
            deploy(connect(node.url), signer, plan, tmp_path / "contracts.json")
        assert not (tmp_path / "contracts.json").exists()


class DyingSigner:
    """A signer whose process ends before its n-th signature."""

    def __init__(self, signer: Signer, signatures: int) -> None:
        self._signer = signer
        self._left = signatures
        self.address = signer.address

    def sign(self, transaction: Unsigned) -> Signed:
        if not self._left:
            raise Died
        self._left -= 1
        return self._signer.sign(transaction)


@pytest.mark.parametrize("signatures", [0, 2, 5, 8])
def test_a_deployment_that_was_killed_is_finished_by_the_next(tmp_path: Path, signatures: int) -> None:
    signer = open_signer(31337, None, None, None)
    plan = DeployPlan(Settings(auth_mode="development").artifacts, reward_delay_s=2, funding=1_000)
    with Anvil() as node:
        w3 = connect(node.url)
        file = tmp_path / "contracts.json"
        with pytest.raises(Died):
            deploy(w3, DyingSigner(signer, signatures), plan, file)
        assert not file.exists()
        deployment = deploy(w3, signer, plan, file)
        check(w3, deployment, file)
        chain = Web3Chain(w3, deployment, plan.artifacts)
        latest = chain.block("latest")
        assert latest is not None
        assert chain.distributor(latest).balance == 1_000
        call = Call("ledger", "commit", (0, 0, 1, b"\x01" * 32, b"\x02" * 32))
        assert chain.estimate(call, signer.address) > 21_000
        assert w3.eth.get_transaction_count(w3.to_checksum_address(signer.address)) == 10
