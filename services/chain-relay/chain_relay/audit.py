"""The facts of this service: what reconciliation compares with the event log, with other services and with the chain
(`servicekit.audit`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from openledger.audit.v1 import audit_pb2 as pb
from openledger.audit.v1.audit_pb2 import Fact
from openledger.settlement.v1.settlement_pb2 import BatchState, RewardRootState
from sqlalchemy import select
from sqlalchemy.orm import Session

from chain_relay.store import tables
from servicekit.audit import ROWS

_STREAMED = {"yield_per": ROWS}


def facts(session: Session) -> Iterator[Fact]:
    """Yields the ledger, every settled answer with the parts of its fee, every batch, earning, registration and reward."""
    for ledger in session.scalars(select(tables.Ledger)):
        yield Fact(
            ledger=pb.Ledger(
                address=ledger.address,
                chain_id=ledger.chain_id,
                next_seq=ledger.next_seq,
                next_event=ledger.next_event,
            )
        )
    for batch in session.scalars(
        select(tables.Batch).order_by(tables.Batch.seq), execution_options=_STREAMED
    ):
        yield Fact(batch=_batch(batch))
    answers = select(tables.ScoredAnswer).order_by(tables.ScoredAnswer.position)
    for rows in session.scalars(answers, execution_options=_STREAMED).partitions():
        yield from _answers(session, rows)
    yield from _registrations(session)
    yield from _rewards(session)


def _batch(row: tables.Batch) -> pb.Batch:
    return pb.Batch(
        seq=row.seq,
        first_event=row.first_event,
        event_count=row.event_count,
        root=row.root,
        data_digest=row.data_digest,
        state=BatchState.Value(f"BATCH_STATE_{row.state.name}"),
        fee_total=str(row.fee_total),
        payout_total=str(row.payout_total),
        dust=str(row.dust),
    )


def _answers(session: Session, rows: Sequence[tables.ScoredAnswer]) -> Iterator[Fact]:
    parts: dict[str, list[pb.FeePart]] = defaultdict(list)
    entry = tables.JournalEntry
    of_rows = select(entry.inference, entry.kind, entry.beneficiary, entry.amount).where(
        entry.inference.in_([row.inference for row in rows])
    )
    for inference, kind, beneficiary, amount in session.execute(of_rows).tuples():
        parts[inference].append(pb.FeePart(kind=kind, beneficiary=beneficiary, amount=str(amount)))
    for row in rows:
        yield Fact(
            settled_answer=pb.SettledAnswer(
                position=row.position,
                inference=row.inference,
                model_digest=row.model_digest,
                report_digest=row.report_digest,
                record_digest=row.record_digest,
                fee=str(row.fee),
                dust=str(row.dust),
                batch_seq=row.batch_seq,
                event_index=row.event_index,
                parts=parts[row.inference],
            )
        )


def _registrations(session: Session) -> Iterator[Fact]:
    for row in session.scalars(select(tables.RegisteredDataset), execution_options=_STREAMED):
        yield Fact(registered_snapshot=pb.RegisteredSnapshot(name=row.name, root=row.root, final=row.final))
    for model in session.scalars(select(tables.RegisteredModel), execution_options=_STREAMED):
        yield Fact(
            registered_model_version=pb.RegisteredModelVersion(
                version_digest=model.version_digest,
                report_digest=model.report_digest,
                state=model.state,
                final=model.final,
            )
        )


def _rewards(session: Session) -> Iterator[Fact]:
    for earning in session.scalars(select(tables.Earning), execution_options=_STREAMED):
        yield Fact(
            earning=pb.Earning(
                batch_seq=earning.batch_seq,
                kind=earning.kind,
                beneficiary=earning.beneficiary,
                address=earning.address,
                amount=str(earning.amount),
            )
        )
    for root in session.scalars(select(tables.RewardRoot).order_by(tables.RewardRoot.number)):
        yield Fact(
            reward_root=pb.RewardRoot(
                number=root.number,
                root=root.root,
                state=RewardRootState.Value(f"REWARD_ROOT_STATE_{root.state.name}"),
                account_count=root.account_count,
                total=str(root.total),
                last_seq=root.last_seq,
            )
        )
    account = tables.RewardAccount
    query = select(account).order_by(account.reward_root, account.position)
    for each in session.scalars(query, execution_options=_STREAMED):
        yield Fact(
            reward_account=pb.RewardAccount(
                reward_root=each.reward_root, address=each.address, cumulative=str(each.cumulative)
            )
        )
