"""Step 6: attribution records become batches on chain, fees are split, a reward is claimed."""

from __future__ import annotations

import time

import httpx
from openledger.settlement.v1 import settlement_pb2 as pb
from openledger.settlement.v1.settlement_pb2_grpc import SettlementServiceStub

from openledger_cli.chain import Chain, claim_reward
from openledger_cli.output import open_tokens
from openledger_cli.paging import every
from servicekit.errors import FailedPrecondition, Unavailable
from threat_intel.people import OPERATOR, TREASURY
from threat_intel.telling import Outcome, Telling

PATIENCE_S = 300.0


def run(telling: Telling) -> Outcome:
    """Flushes, follows to final, proposes rewards, claims."""
    outcome = Outcome()
    connections = telling.as_(OPERATOR)
    stub, rpc = connections.settlement, telling.platform.doors["chain"]
    answers = [answer["inference"] for answer in telling.result("answer")["answers"]]
    batches = _commit(telling, stub, len(answers))
    info = stub.GetSettlementInfo(pb.GetSettlementInfoRequest(), timeout=60)
    events, gas = sum(b.event_count for b in batches), sum(b.gas_used for b in batches)
    source = ", ".join(f"{b.name} {b.transaction_hash}" for b in batches)
    per_event = gas / events
    for batch in batches:
        times = {state.state: state.time.ToMilliseconds() for state in batch.history}
        sealed = times[pb.BATCH_STATE_SEALED]
        spent = {
            pb.BatchState.Name(s).removeprefix("BATCH_STATE_").lower(): (t - sealed) / 1000
            for s, t in times.items()
        }
        telling.say(
            f"{batch.name}: {batch.event_count} events, {batch.gas_used:,} gas, "
            + ", ".join(f"{name} after {s:.1f} s" for name, s in spent.items() if name != "sealed")
        )
        for name in ("committed", "settled", "final"):
            outcome.figures.add(
                f"{batch.name}: time to {name}", round(spent[name], 2), "s", batch.transaction_hash
            )
    telling.say(
        f"{per_event:,.0f} gas an event in batches, {info.baseline_gas_per_event:,} in a transaction of its own"
    )
    proof = stub.GetInclusionProof(pb.GetInclusionProofRequest(inference=answers[0]), timeout=60)
    telling.say(
        f"{answers[0]} is event {proof.leaf.event_index} of {proof.batch.name}: "
        f"leaf {proof.leaf_hash[:18]}..., {len(proof.proof)} hashes"
    )
    balances = list(
        every(
            lambda token: stub.ListBalances(pb.ListBalancesRequest(page_token=token), timeout=60), "balances"
        )
    )
    money = stub.ListBalances(pb.ListBalancesRequest(page_size=1), timeout=60)
    if int(money.fee_total) != int(money.payout_total) + int(money.dust):
        raise FailedPrecondition(
            "FEES_DO_NOT_ADD_UP",
            f"{money.fee_total} != {money.payout_total} + {money.dust}",
            subject="settlement",
        )
    telling.say(
        f"fees {open_tokens(money.fee_total)} = payouts {open_tokens(money.payout_total)} + dust {money.dust} base units"
    )
    root = _reward_root(telling, stub)
    claimant, balance = _claimant(balances)
    wallet = telling.wallet(claimant)
    _give_gas(rpc, wallet.address)
    claim = claim_reward(connections, rpc, str(wallet.key_file))
    telling.say(
        f"{claimant} claimed {open_tokens(str(claim.received))} of {open_tokens(balance.earned)} "
        f"by {claim.transaction_hash[:18]}..., {claim.gas_used:,} gas"
    )
    figures = outcome.figures
    figures.add("events on chain", events, "events", source)
    figures.add("gas an event in batches", round(per_event, 1), "gas", source)
    figures.add(
        "gas an event, one transaction each",
        info.baseline_gas_per_event,
        "gas",
        "measured by the relay on the same chain",
    )
    figures.add("fees", money.fee_total, "10^-18 OPEN", "settlement service")
    figures.add("payouts", money.payout_total, "10^-18 OPEN", "settlement service")
    figures.add("dust", money.dust, "10^-18 OPEN", "settlement service")
    figures.add("reward accounts", root.account_count, "accounts", f"{root.name} {root.root}")
    figures.add(f"claimed by {claimant}", str(claim.received), "10^-18 OPEN", claim.transaction_hash)
    figures.add("gas of the claim", claim.gas_used, "gas", claim.transaction_hash)
    outcome.facts = {
        "batches": [
            {
                "name": b.name,
                "events": b.event_count,
                "gas": b.gas_used,
                "transaction": b.transaction_hash,
                "root": b.root,
            }
            for b in batches
        ],
        "claimant": claimant,
        "account": wallet.address,
        "claim": claim.transaction_hash,
        "claim_received": str(claim.received),
        "reward_root": root.root,
        "gas_per_event": per_event,
        "baseline_gas": info.baseline_gas_per_event,
        "balances": [{"kind": b.kind, "beneficiary": b.beneficiary, "earned": b.earned} for b in balances],
        "fee_total": money.fee_total,
        "dust": money.dust,
        "answer": answers[0],
    }
    return outcome


def _commit(telling: Telling, stub: SettlementServiceStub, answers: int) -> list[pb.Batch]:
    """Batches until every answer is in one that is final. Raises Unavailable after five minutes."""
    deadline = time.monotonic() + PATIENCE_S
    with telling.bar("events final on chain", answers) as bar:
        while time.monotonic() < deadline:
            batches = list(
                every(
                    lambda token: stub.ListBatches(pb.ListBatchesRequest(page_token=token), timeout=60),
                    "batches",
                )
            )
            if sum(b.event_count for b in batches) < answers:
                stub.FlushBatch(pb.FlushBatchRequest(), timeout=60)
            final = [b for b in batches if b.state == pb.BATCH_STATE_FINAL]
            done = sum(b.event_count for b in final)
            bar.at(done, answers)
            if done >= answers:
                return sorted(final, key=lambda b: b.seq)
            time.sleep(
                0.5
            )  # a poll of a public door: batches are still to be made, so there is none to watch
    raise Unavailable("NOT_FINAL", f"not all answers are final on chain after {PATIENCE_S:.0f} s")


def _reward_root(telling: Telling, stub: SettlementServiceStub) -> pb.RewardRoot:
    """Proposes a root over all batches and waits until it is accepted."""
    root: pb.RewardRoot = stub.ProposeRewardRoot(
        pb.ProposeRewardRootRequest(request_id=telling.journal.request_id("rewards")), timeout=60
    )
    begun = time.monotonic()
    while root.state != pb.REWARD_ROOT_STATE_ACCEPTED:
        if root.state == pb.REWARD_ROOT_STATE_VETOED or time.monotonic() - begun > PATIENCE_S:
            raise Unavailable("NOT_ACCEPTED", f"{root.name} is {pb.RewardRootState.Name(root.state)}")
        time.sleep(0.5)  # a poll of a public door
        root = stub.GetRewardRoot(pb.GetRewardRootRequest(name=root.name), timeout=60)
    telling.say(
        f"{root.name} accepted after {time.monotonic() - begun:.0f} s: {root.account_count} accounts, {open_tokens(root.total)}"
    )
    return root


def _claimant(balances: list[pb.Balance]) -> tuple[str, pb.Balance]:
    """The contributor who earned most, or the Datanet's treasury when nothing was attributable."""
    for kind in ("contributor", "treasury"):
        found = [b for b in balances if b.kind == kind and b.address and int(b.earned) > 0]
        if found:
            best = max(found, key=lambda b: int(b.earned))
            return (best.beneficiary.rsplit("/", 1)[-1] if kind == "contributor" else TREASURY), best
    raise FailedPrecondition(
        "NOBODY_EARNED", "neither a contributor nor the treasury has earned anything", subject="balances"
    )


def _give_gas(rpc: str, address: str) -> None:
    """Ether for the claim's gas, by the development chain's faucet."""
    chain = Chain(rpc)
    body = {"jsonrpc": "2.0", "id": 1, "method": "anvil_setBalance", "params": [address, hex(10**18)]}
    answer = httpx.post(rpc, json=body, timeout=20, trust_env=False).json()
    if "error" in answer:
        raise Unavailable("NO_FAUCET", f"chain {chain.chain_id} is no development chain: {answer['error']}")
