"""`openledger settle ...`: batches, proofs, balances, rewards, claims."""

from __future__ import annotations

from typing import Annotated

import typer
from openledger.settlement.v1 import settlement_pb2 as pb

from openledger_cli.context import session
from openledger_cli.output import console, emit, emit_list, open_tokens
from openledger_cli.paging import every

app = typer.Typer(help="What answers paid, and its proof on chain.", no_args_is_help=True)


@app.command()
def info() -> None:
    """Shows the chain, its contracts, rates and splits."""
    found = session().connections.settlement.GetSettlementInfo(
        pb.GetSettlementInfoRequest(), timeout=session().connections.deadline_s
    )
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
def flush() -> None:
    """Seals the waiting events into a batch now."""
    found = session().connections.settlement.FlushBatch(
        pb.FlushBatchRequest(), timeout=session().connections.deadline_s
    )
    if found.HasField("batch"):
        _show_batch(found.batch)
    else:
        console.print("nothing waits")


@app.command()
def batches(limit: int = 50) -> None:
    """Lists batches, newest first."""
    stub = session().connections.settlement
    found = every(lambda token: stub.ListBatches(pb.ListBatchesRequest(page_token=token)), "batches", limit)
    emit_list(
        found,
        [
            ("batch", lambda b: b.name),
            ("events", lambda b: b.event_count),
            ("state", _state),
            ("gas", lambda b: b.gas_used),
            ("fees", lambda b: open_tokens(b.fee_total)),
            ("transaction", lambda b: b.transaction_hash),
        ],
    )


@app.command()
def batch(name: Annotated[str, typer.Argument(help="batches/SEQ")]) -> None:
    """Shows one batch."""
    _show_batch(
        session().connections.settlement.GetBatch(
            pb.GetBatchRequest(name=name), timeout=session().connections.deadline_s
        )
    )


@app.command()
def watch(name: Annotated[str, typer.Argument(help="batches/SEQ")]) -> None:
    """Watches a batch until it is final."""
    for found in session().connections.settlement.WatchBatch(pb.WatchBatchRequest(name=name)):
        if session().as_json:
            emit(found)
        else:
            console.print(f"{found.name} {_state(found)} block {found.block_number or '-'}")


@app.command()
def proof(inference: Annotated[str, typer.Argument(help="inferences/ULID")]) -> None:
    """Shows the proof that an answer's attribution is on chain."""
    found = session().connections.settlement.GetInclusionProof(
        pb.GetInclusionProofRequest(inference=inference), timeout=session().connections.deadline_s
    )
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
    found = session().connections.settlement.GetSettlement(
        pb.GetSettlementRequest(inference=inference), timeout=session().connections.deadline_s
    )
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
def balances() -> None:
    """Lists what every account has earned."""
    stub = session().connections.settlement
    found = every(lambda token: stub.ListBalances(pb.ListBalancesRequest(page_token=token)), "balances")
    emit_list(
        found,
        [
            ("kind", lambda b: b.kind),
            ("for", lambda b: b.beneficiary),
            ("earned", lambda b: open_tokens(b.earned)),
            ("claimable", lambda b: open_tokens(b.claimable)),
            ("claimed", lambda b: open_tokens(b.claimed)),
            ("address", lambda b: b.address or "held"),
        ],
    )


@app.command()
def propose(request_id: str = "") -> None:
    """Proposes the next reward root."""
    _show_root(
        session().connections.settlement.ProposeRewardRoot(
            pb.ProposeRewardRootRequest(request_id=request_id), timeout=session().connections.deadline_s
        )
    )


@app.command()
def roots(limit: int = 50) -> None:
    """Lists reward roots, newest first."""
    stub = session().connections.settlement
    found = every(
        lambda token: stub.ListRewardRoots(pb.ListRewardRootsRequest(page_token=token)), "reward_roots", limit
    )
    emit_list(
        found,
        [
            ("root", lambda r: r.name),
            ("state", lambda r: root_state(r.state)),
            ("accounts", lambda r: r.account_count),
            ("total", lambda r: open_tokens(r.total)),
            ("merkle root", lambda r: r.root),
        ],
    )


@app.command()
def claim(
    rpc: Annotated[str, typer.Option(envvar="OPENLEDGER_RPC", help="The chain's JSON-RPC address.")],
    key_file: Annotated[str, typer.Option(help="File with the account's private key, hex.")],
) -> None:
    """Claims an account's rewards on chain: a transaction of the account itself, by proof."""
    from openledger_cli.chain import claim_reward  # here: web3 would cost every other command a second

    outcome = claim_reward(session().connections, rpc, key_file)
    console.print(
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
        ("moved back", found.reorg_count),
    )


def _show_root(found: pb.RewardRoot) -> None:
    emit(
        found,
        ("reward root", found.name),
        ("state", root_state(found.state)),
        ("accounts", found.account_count),
        ("total", open_tokens(found.total)),
        ("merkle root", found.root),
    )


def root_state(state: pb.RewardRootState.ValueType) -> str:
    """`accepted`."""
    return pb.RewardRootState.Name(state).removeprefix("REWARD_ROOT_STATE_").lower()


def _state(found: pb.Batch) -> str:
    return pb.BatchState.Name(found.state).removeprefix("BATCH_STATE_").lower()
