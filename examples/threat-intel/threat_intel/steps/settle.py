"""Step 6: attribution records become batches on chain, fees are split, a reward is claimed."""

from __future__ import annotations

import json
import time

from openledger.settlement.v1 import settlement_pb2 as pb
from openledger.settlement.v1.settlement_pb2_grpc import SettlementServiceStub

from openledger_client.amounts import open_tokens
from openledger_client.errors import FailedPrecondition, Unavailable
from openledger_client.paging import items
from servicekit.http_client import HttpClient
from threat_intel.command import openledger
from threat_intel.people import OPERATOR, TREASURY
from threat_intel.run import Outcome, Run

PATIENCE_S = 300.0
_RPC_S = 20.0


def execute(run: Run) -> Outcome:
    """Flushes, follows to final, proposes rewards, claims."""
    outcome = Outcome()
    stub, rpc = run.as_(OPERATOR).settlement, run.platform.endpoints["chain"]
    answers = [answer["inference"] for answer in run.result("answer")["answers"]]
    batches = _commit(run, stub, len(answers))
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
        run.say(
            f"{batch.name}: {batch.event_count} events, {batch.gas_used:,} gas, "
            + ", ".join(f"{name} after {s:.1f} s" for name, s in spent.items() if name != "sealed")
        )
        for name in ("committed", "settled", "final"):
            outcome.figures.add(
                f"{batch.name}: time to {name}", round(spent[name], 2), "s", batch.transaction_hash
            )
    run.say(
        f"{per_event:,.0f} gas an event in batches, {info.baseline_gas_per_event:,} in a transaction of its own"
    )
    proof = stub.GetInclusionProof(pb.GetInclusionProofRequest(inference=answers[0]), timeout=60)
    run.say(
        f"{answers[0]} is event {proof.leaf.event_index} of {proof.batch.name}: "
        f"leaf {proof.leaf_hash[:18]}..., {len(proof.proof)} hashes"
    )
    balances = list(items(stub.ListBalances, pb.ListBalancesRequest(), lambda page: page.balances))
    money = stub.ListBalances(pb.ListBalancesRequest(page_size=1), timeout=60)
    if int(money.fee_total) != int(money.payout_total) + int(money.dust):
        raise FailedPrecondition(
            f"{money.fee_total} != {money.payout_total} + {money.dust}",
            reason="FEES_DO_NOT_ADD_UP",
            subject="settlement",
        )
    run.say(
        f"fees {open_tokens(money.fee_total)} = payouts {open_tokens(money.payout_total)} + dust {money.dust} base units"
    )
    root = _reward_root(run, stub)
    claimant, balance = _claimant(balances)
    wallet = run.wallet(claimant)
    _give_gas(rpc, wallet.address)
    claim = openledger(
        run.platform.state_dir,
        OPERATOR,
        *("settle", "claim"),
        *("--rpc", rpc),
        *("--key-file", str(wallet.key_file)),
    )
    run.say(
        f"{claimant} claimed {open_tokens(claim['received'])} of {open_tokens(balance.earned)} "
        f"by {claim['transaction_hash'][:18]}..., {claim['gas_used']:,} gas"
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
    figures.add(f"claimed by {claimant}", claim["received"], "10^-18 OPEN", claim["transaction_hash"])
    figures.add("gas of the claim", claim["gas_used"], "gas", claim["transaction_hash"])
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
        "claim": claim["transaction_hash"],
        "claim_received": claim["received"],
        "reward_root": root.root,
        "gas_per_event": per_event,
        "baseline_gas": info.baseline_gas_per_event,
        "balances": [{"kind": b.kind, "beneficiary": b.beneficiary, "earned": b.earned} for b in balances],
        "fee_total": money.fee_total,
        "dust": money.dust,
        "answer": answers[0],
    }
    return outcome


def _commit(run: Run, stub: SettlementServiceStub, answers: int) -> list[pb.Batch]:
    """Batches until every answer is in one that is final. Raises Unavailable after five minutes."""
    deadline = time.monotonic() + PATIENCE_S
    with run.progress("events final on chain", answers) as bar:
        while time.monotonic() < deadline:
            batches = list(items(stub.ListBatches, pb.ListBatchesRequest(), lambda page: page.batches))
            if sum(b.event_count for b in batches) < answers:
                stub.FlushBatch(pb.FlushBatchRequest(), timeout=60)
            final = [b for b in batches if b.state == pb.BATCH_STATE_FINAL]
            done = sum(b.event_count for b in final)
            bar.at(done, answers)
            if done >= answers:
                return sorted(final, key=lambda b: b.seq)
            time.sleep(0.5)  # batches are still to be made, so there is none to watch
    raise Unavailable(f"not all answers are final on chain after {PATIENCE_S:.0f} s", reason="NOT_FINAL")


def _reward_root(run: Run, stub: SettlementServiceStub) -> pb.RewardRoot:
    """Proposes a root over all batches and waits until it is accepted."""
    root: pb.RewardRoot = stub.ProposeRewardRoot(
        pb.ProposeRewardRootRequest(request_id=run.journal.request_id("rewards")), timeout=60
    )
    begun = time.monotonic()
    while root.state != pb.REWARD_ROOT_STATE_ACCEPTED:
        if root.state == pb.REWARD_ROOT_STATE_VETOED or time.monotonic() - begun > PATIENCE_S:
            raise FailedPrecondition(
                f"{root.name} is {pb.RewardRootState.Name(root.state)}",
                reason="NOT_ACCEPTED",
                subject=root.name,
            )
        time.sleep(0.5)  # there is no watch for this
        root = stub.GetRewardRoot(pb.GetRewardRootRequest(name=root.name), timeout=60)
    run.say(
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
        "neither a contributor nor the treasury has earned anything", reason="NO_EARNINGS", subject="balances"
    )


def _give_gas(rpc: str, address: str) -> None:
    """Ether for the claim's gas, by the development chain's faucet."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "anvil_setBalance", "params": [address, hex(10**18)]}
    answer = json.loads(HttpClient(_RPC_S).exchange("POST", rpc, json=body).body)
    if "error" in answer:
        raise FailedPrecondition(
            f"the chain at {rpc} is no development chain: {answer['error']}", reason="NO_FAUCET", subject=rpc
        )
