"""Rows of the database as messages of the API and of events."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from openledger.settlement.v1 import settlement_pb2

from chain_relay.tables import Batch, BatchChange, RewardRoot
from identity.names import BatchName, RewardRootName


def timestamp(moment: datetime) -> Timestamp:
    """A moment as protobuf has it."""
    result = Timestamp()
    result.FromDatetime(moment)
    return result


def hex_text(data: bytes) -> str:
    """Bytes as 0x hex."""
    return "0x" + data.hex()


def batch_message(batch: Batch, history: list[BatchChange]) -> settlement_pb2.Batch:
    """A batch with the states it came through."""
    return settlement_pb2.Batch(
        name=str(BatchName(batch.seq)),
        seq=batch.seq,
        first_event=batch.first_event,
        event_count=batch.event_count,
        root=hex_text(batch.root),
        data_digest=batch.data_digest,
        state=settlement_pb2.BatchState.ValueType(batch.state.value),
        history=[
            settlement_pb2.Batch.StateTime(
                state=settlement_pb2.BatchState.ValueType(change.state.value), time=timestamp(change.time)
            )
            for change in history
        ],
        transaction_hash=batch.transaction_hash,
        block_number=batch.block_number,
        gas_used=batch.gas_used,
        effective_gas_price=str(batch.gas_price),
        fee_total=str(batch.fee_total),
        payout_total=str(batch.payout_total),
        dust=str(batch.dust),
        reorg_count=batch.reorg_count,
    )


def reward_root_message(root: RewardRoot, propose_hash: str, accept_hash: str) -> settlement_pb2.RewardRoot:
    """A reward root with the transactions that made it."""
    return settlement_pb2.RewardRoot(
        name=str(RewardRootName(root.number)),
        root=hex_text(root.root),
        state=settlement_pb2.RewardRootState.ValueType(root.state.value),
        account_count=root.account_count,
        total=str(root.total),
        last_seq=root.last_seq,
        accept_after=None if root.accept_after is None else timestamp(root.accept_after),
        propose_transaction_hash=propose_hash,
        accept_transaction_hash=accept_hash,
    )
