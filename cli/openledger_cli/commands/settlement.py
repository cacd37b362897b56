"""`openledger settle ...`: batches, proofs, balances, rewards, claims."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from openledger_cli import lists
from openledger_cli.console import say
from openledger_cli.context import session
from openledger_cli.deferred import Deferred
from openledger_cli.lazy import group
from openledger_cli.options import Limit, RequestId, show_list
from openledger_cli.output import emit, emit_list, lower_name, moment
from openledger_client.amounts import open_tokens

if TYPE_CHECKING:
    from openledger.settlement.v1 import settlement_pb2 as pb

    from openledger_client import watches
else:
    pb = Deferred("openledger.settlement.v1.settlement_pb2")
    watches = Deferred("openledger_client.watches")

app = group("What answers paid, and its proof on chain.")


@app.command()
def info() -> None:
    """Shows the chain, its contracts, the rates and the split."""
    found = session().client.settlement.GetSettlementInfo(pb.GetSettlementInfoRequest())
    emit(
        found,
        ("chain id", str(found.chain_id)),
        ("ledger", found.ledger_address),
        ("distributor", found.distributor_address),
        ("token", found.token_address),
        ("registry", found.registry_address),
        (
            "rates",
            f"{open_tokens(found.rate_in)} per 1,000 tokens in, {open_tokens(found.rate_out)} per 1,000 out, "
            f"{open_tokens(found.platform_fee)} an answer",
        ),
        ("split", ", ".join(f"{kind} {bps / 100:g}%" for kind, bps in sorted(found.split_bps.items()))),
        ("events waiting", found.waiting_event_count),
    )


@app.command()
def flush(request_id: RequestId = "") -> None:
    """Seals the waiting events into a batch now."""
    found = session().client.settlement.FlushBatch(pb.FlushBatchRequest(request_id=request_id))
    if session().as_json:
        emit(found)
    elif found.HasField("batch"):
        _show_batch(found.batch)
    else:
        say("no events are waiting")


@app.command()
def batches(
    filter: Annotated[str, lists.BATCHES.filter_option()] = "",
    order_by: Annotated[str, lists.BATCHES.order_option()] = "",
    limit: Limit = 50,
) -> None:
    """Lists batches, newest first."""
    show_list(
        session().client.settlement.ListBatches,
        pb.ListBatchesRequest(),
        lambda page: page.batches,
        [
            ("batch", lambda b: b.name),
            ("events", lambda b: b.event_count),
            ("state", _state),
            ("gas", lambda b: b.gas_used),
            ("fees", lambda b: open_tokens(b.fee_total)),
            ("transaction", lambda b: b.transaction_hash),
        ],
        filter=filter,
        order_by=order_by,
        limit=limit,
    )


@app.command()
def batch(name: Annotated[str, typer.Argument(help="batches/SEQ")]) -> None:
    """Shows one batch."""
    _show_batch(session().client.settlement.GetBatch(pb.GetBatchRequest(name=name)))


@app.command()
def watch(name: Annotated[str, typer.Argument(help="batches/SEQ")]) -> None:
    """Watches a batch until it is final."""
    call = session().client.settlement.WatchBatch
    for found in watches.watch(call, pb.WatchBatchRequest(name=name)):
        if session().as_json:
            emit(found)
        else:
            say(f"{found.name} {_state(found)} block {found.block_number or '-'}")


@app.command()
def proof(inference: Annotated[str, typer.Argument(help="inferences/ULID")]) -> None:
    """Shows the proof that an answer's attribution is on chain."""
    found = session().client.settlement.GetInclusionProof(pb.GetInclusionProofRequest(inference=inference))
    emit(
        found,
        ("batch", found.batch.name),
        ("event", found.index),
        ("leaf", found.leaf_hash),
        ("root", found.batch.root),
        ("proof", "\n".join(found.proof) or "(the leaf is the root)"),
        ("record", found.leaf.record_digest),
    )


@app.command()
def money(inference: Annotated[str, typer.Argument(help="inferences/ULID")]) -> None:
    """Shows the fee of an answer and every part of it."""
    found = session().client.settlement.GetSettlement(pb.GetSettlementRequest(inference=inference))
    if session().as_json:
        emit(found)
        return
    emit_list(
        found.payouts,
        [
            ("kind", lambda p: p.kind),
            ("for", lambda p: p.beneficiary),
            ("address", lambda p: p.address or "held"),
            ("amount", lambda p: open_tokens(p.amount)),
        ],
        title=f"fee {open_tokens(found.fee)}, dust {found.dust} base units",
    )


@app.command()
def balances(
    filter: Annotated[str, lists.BALANCES.filter_option()] = "",
    order_by: Annotated[str, lists.BALANCES.order_option()] = "",
    limit: Limit = 50,
) -> None:
    """Lists what every account has earned."""
    show_list(
        session().client.settlement.ListBalances,
        pb.ListBalancesRequest(),
        lambda page: page.balances,
        [
            ("kind", lambda b: b.kind),
            ("for", lambda b: b.beneficiary),
            ("earned", lambda b: open_tokens(b.earned)),
            ("claimable", lambda b: open_tokens(b.claimable)),
            ("claimed", lambda b: open_tokens(b.claimed)),
            ("address", lambda b: b.address or "held"),
        ],
        filter=filter,
        order_by=order_by,
        limit=limit,
    )


@app.command()
def propose(request_id: RequestId = "") -> None:
    """Proposes the next reward root."""
    _show_root(
        session().client.settlement.ProposeRewardRoot(pb.ProposeRewardRootRequest(request_id=request_id))
    )


@app.command()
def root(name: Annotated[str, typer.Argument(help="rewardRoots/NUMBER")]) -> None:
    """Shows one reward root: whether it is accepted, and from when it can be."""
    _show_root(session().client.settlement.GetRewardRoot(pb.GetRewardRootRequest(name=name)))


@app.command()
def roots(
    filter: Annotated[str, lists.REWARD_ROOTS.filter_option()] = "",
    order_by: Annotated[str, lists.REWARD_ROOTS.order_option()] = "",
    limit: Limit = 50,
) -> None:
    """Lists reward roots, newest first."""
    show_list(
        session().client.settlement.ListRewardRoots,
        pb.ListRewardRootsRequest(),
        lambda page: page.reward_roots,
        [
            ("root", lambda r: r.name),
            ("state", lambda r: root_state(r.state)),
            ("accounts", lambda r: r.account_count),
            ("total", lambda r: open_tokens(r.total)),
            ("merkle root", lambda r: r.root),
        ],
        filter=filter,
        order_by=order_by,
        limit=limit,
    )


@app.command()
def reward(address: Annotated[str, typer.Argument(help="Chain address of the account, 0x...")]) -> None:
    """Shows the proof by which an account claims its rewards."""
    found = session().client.settlement.GetRewardProof(pb.GetRewardProofRequest(address=address))
    emit(
        found,
        ("account", found.address),
        ("reward root", f"{found.reward_root.name} {found.reward_root.root}"),
        ("earned", open_tokens(found.cumulative)),
        ("claimed", open_tokens(found.claimed)),
        ("distributor", f"{found.distributor_address} on chain {found.chain_id}"),
        ("proof", "\n".join(found.proof) or "(the leaf is the root)"),
    )


@app.command()
def claim(
    rpc: Annotated[str, typer.Option(envvar="OPENLEDGER_RPC", help="The chain's JSON-RPC address.")],
    key_file: Annotated[str, typer.Option(help="File with the account's private key, hex.")],
) -> None:
    """Claims an account's rewards on chain: a transaction of the account itself, by proof."""
    from openledger_cli.chain import claim_reward  # here: web3 would cost every other command a second

    outcome = claim_reward(session().client, rpc, key_file)
    if session().as_json:
        print(json.dumps({**asdict(outcome), "received": str(outcome.received)}))
        return
    say(
        f"{outcome.address} received {open_tokens(str(outcome.received))} by {outcome.transaction_hash} "
        f"({outcome.gas_used:,} gas)"
    )


def _show_batch(found: pb.Batch) -> None:
    emit(
        found,
        ("batch", found.name),
        ("state", _state(found)),
        ("events", f"{found.event_count:,} from {found.first_event:,}"),
        ("root", found.root),
        ("data", found.data_digest),
        ("transaction", found.transaction_hash or "-"),
        ("gas", found.gas_used),
        ("fees", open_tokens(found.fee_total)),
        ("paid out", open_tokens(found.payout_total)),
        ("dust", f"{found.dust} base units"),
        ("reorganisations", found.reorg_count),
    )


def _show_root(found: pb.RewardRoot) -> None:
    emit(
        found,
        ("reward root", found.name),
        ("state", root_state(found.state)),
        ("accounts", found.account_count),
        ("total", open_tokens(found.total)),
        ("last batch", f"batches/{found.last_seq}"),
        ("can be accepted", moment(found.accept_after)),
        ("merkle root", found.root),
        ("proposed by", found.propose_transaction_hash or "-"),
        ("accepted by", found.accept_transaction_hash or "-"),
    )


def root_state(state: pb.RewardRootState.ValueType) -> str:
    """`accepted`."""
    return lower_name(pb.RewardRootState.Name(state), "REWARD_ROOT_STATE_")


def _state(found: pb.Batch) -> str:
    return lower_name(pb.BatchState.Name(found.state), "BATCH_STATE_")
