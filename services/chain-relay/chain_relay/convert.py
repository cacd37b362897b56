"""Protobuf messages to and from the relay's own types. Only this module, `api`, `events` and `audit` use messages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from openledger.attribution.v1 import attribution_pb2
from openledger.datanet.v1 import events_pb2 as datanet_events
from openledger.settlement.v1 import settlement_pb2 as pb
from openledger.trainer.v1 import trainer_pb2

from chain_relay.answers import AttributedAnswer
from chain_relay.records import AccountBalance, BatchRecord, Claim, Info, RewardRootRecord, SettledAnswer
from chain_relay.registrar import ModelRegistration, SnapshotRegistration
from chain_relay.settings import checked_address
from chain_relay.split import Answer, ShareOf
from chain_relay.store.answers import Inclusion
from chain_relay.store.balances import Sums
from chain_relay.store.tables import Batch, BatchChange, Ledger
from identity.digest import InvalidDigest, digest_to_bytes, sha256_bytes
from identity.names import (
    BatchName,
    InferenceName,
    InvalidName,
    ModelVersionName,
    RewardRootName,
    SnapshotName,
)
from servicekit import timestamps
from servicekit.eventlog.events import InvalidEvent
from servicekit.lists import Page


def hex_text(data: bytes) -> str:
    """Returns bytes as 0x hex."""
    return "0x" + data.hex()


def info_message(info: Info) -> pb.SettlementInfo:
    """Returns the chain, its contracts, rates and splits."""
    return pb.SettlementInfo(
        chain_id=info.ledger.chain_id,
        ledger_address=info.ledger.address,
        distributor_address=info.contracts["distributor"],
        token_address=info.contracts["token"],
        registry_address=info.contracts["registry"],
        committer_address=info.committer,
        rate_in=str(info.rates.rate_in),
        rate_out=str(info.rates.rate_out),
        platform_fee=str(info.rates.platform_fee),
        split_bps={
            "platform": info.split.platform,
            "model_owner": info.split.model_owner,
            "stakers": info.split.stakers,
            "contributors": info.split.contributors,
        },
        waiting_event_count=info.waiting_events,
        baseline_gas_per_event=info.ledger.baseline_gas,
    )


def batch_message(batch: Batch, history: Sequence[BatchChange]) -> pb.Batch:
    """Returns a batch with the states it went through."""
    return pb.Batch(
        name=str(BatchName(batch.seq)),
        seq=batch.seq,
        first_event=batch.first_event,
        event_count=batch.event_count,
        root=hex_text(batch.root),
        data_digest=batch.data_digest,
        state=pb.BatchState.ValueType(batch.state.value),
        history=[
            pb.Batch.StateTime(
                state=pb.BatchState.ValueType(change.state.value), time=timestamps.to_proto(change.time)
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


def record_message(record: BatchRecord) -> pb.Batch:
    """Returns a batch record as a message."""
    return batch_message(record.batch, record.history)


def batch_changed_message(
    batch: Batch, history: Sequence[BatchChange], ledger: Ledger, *, moved_back: bool, time: datetime
) -> pb.BatchStateChanged:
    """Returns the event that a batch changed its state."""
    return pb.BatchStateChanged(
        batch=batch_message(batch, history),
        chain_id=ledger.chain_id,
        ledger_address=ledger.address,
        event_time=timestamps.to_proto(time),
        moved_back=moved_back,
    )


def inclusion_message(found: Inclusion) -> pb.InclusionProof:
    """Returns the proof that an answer is in a batch."""
    leaf = found.leaf
    return pb.InclusionProof(
        batch=batch_message(found.batch, found.history),
        index=found.index,
        leaf=pb.InclusionProof.Leaf(
            chain_id=leaf.chain_id,
            ledger_address=leaf.ledger,
            seq=leaf.batch_seq,
            event_index=leaf.event_index,
            inference=leaf.inference,
            model_digest=leaf.model_version_digest,
            report_digest=leaf.report_digest,
            record_digest=leaf.record_digest,
            fee=str(leaf.fee_paid),
        ),
        leaf_hash=hex_text(leaf.hash()),
        proof=[hex_text(sibling) for sibling in found.proof],
    )


def settlement_message(settled: SettledAnswer) -> pb.Settlement:
    """Returns an answer's fee and its parts."""
    answer = settled.answer
    return pb.Settlement(
        inference=answer.inference,
        fee=str(answer.fee),
        dust=str(answer.dust),
        batch="" if answer.batch_seq is None else str(BatchName(answer.batch_seq)),
        payouts=[
            pb.Settlement.Payout(
                kind=entry.kind,
                beneficiary=entry.beneficiary,
                address=entry.address,
                amount=str(entry.amount),
            )
            for entry in settled.journal
        ],
    )


def balances_message(page: Page[AccountBalance], sums: Sums) -> pb.ListBalancesResponse:
    """Returns a page of balances with the sums over all of them."""
    return pb.ListBalancesResponse(
        balances=[
            pb.Balance(
                kind=row.earned.kind,
                beneficiary=row.earned.beneficiary,
                address=row.earned.address,
                earned=str(row.earned.amount),
                claimable=str(row.claimable),
                claimed=str(row.claimed),
            )
            for row in page.items
        ],
        next_page_token=page.next_page_token,
        total_size=page.total_size,
        fee_total=str(sums.fees),
        payout_total=str(sums.payouts),
        dust=str(sums.dust),
    )


def reward_root_message(record: RewardRootRecord) -> pb.RewardRoot:
    """Returns a reward root with the transactions that proposed and accepted it."""
    root = record.root
    return pb.RewardRoot(
        name=str(RewardRootName(root.number)),
        root=hex_text(root.root),
        state=pb.RewardRootState.ValueType(root.state.value),
        account_count=root.account_count,
        total=str(root.total),
        last_seq=root.last_seq,
        accept_after=timestamps.to_proto(root.accept_after),
        propose_transaction_hash=record.propose_hash,
        accept_transaction_hash=record.accept_hash,
    )


def claim_message(claim: Claim) -> pb.RewardProof:
    """Returns everything an account needs to claim."""
    return pb.RewardProof(
        reward_root=reward_root_message(claim.root),
        address=claim.address,
        cumulative=str(claim.cumulative),
        claimed=str(claim.claimed),
        proof=[hex_text(sibling) for sibling in claim.proof],
        chain_id=claim.chain_id,
        distributor_address=claim.distributor,
    )


def attributed_answer(scored: attribution_pb2.AttributionScored) -> AttributedAnswer:
    """Returns the answer that an event reports.

    Raises:
        InvalidEvent: the answer can never be settled: wrong digests, names or addresses, or shares that do not add up.
    """
    attribution = scored.attribution
    _check(attribution)
    model = attribution.model
    try:
        division = Answer(
            model_owner=attribution.model_owner,
            shares=[
                ShareOf(share.contributor, share.ppm, checked_address(share.payout_address))
                for share in attribution.shares
            ],
            unattributed_ppm=attribution.unattributed_ppm,
            treasuries={
                datanet: checked_address(address)
                for datanet, address in sorted(scored.treasury_addresses.items())
            },
        )
    except ValueError as error:
        raise InvalidEvent("BAD_ADDRESS", f"{attribution.name}: {error}") from None
    return AttributedAnswer(
        inference=attribution.inference,
        model_digest=model.version_digest or model.base_digest,
        report_digest=model.report_digest,
        record_digest=attribution.digest,
        input_tokens=attribution.usage.input_tokens,
        output_tokens=attribution.usage.output_tokens,
        division=division,
    )


def _check(attribution: attribution_pb2.Attribution) -> None:
    model = attribution.model
    try:
        InferenceName.parse(attribution.inference)
        for digest in (attribution.digest, model.version_digest or model.base_digest):
            digest_to_bytes(digest)
        if model.report_digest:
            digest_to_bytes(model.report_digest)
    except (InvalidName, InvalidDigest) as error:
        raise InvalidEvent("BAD_NAME", str(error)) from None
    found = sha256_bytes(attribution.canonical_json)
    if found != attribution.digest:
        raise InvalidEvent(
            "WRONG_DIGEST", f"{attribution.name}: digest is {attribution.digest}, its record has {found}"
        )
    total = sum(share.ppm for share in attribution.shares) + attribution.unattributed_ppm
    if total != 1_000_000 or any(share.ppm < 0 for share in attribution.shares):
        raise InvalidEvent(
            "WRONG_SHARES",
            f"{attribution.name}: shares and unattributed_ppm must be non-negative and add up to 1,000,000, got {total}",
        )
    contributors = [share.contributor for share in attribution.shares]
    if len(set(contributors)) != len(contributors) or attribution.unattributed_ppm < 0:
        raise InvalidEvent(
            "WRONG_SHARES",
            f"{attribution.name}: a contributor is listed twice, or unattributed_ppm is negative",
        )


def snapshot_registration(sealed: datanet_events.SnapshotSealed) -> SnapshotRegistration:
    """Returns the snapshot to register. Raises InvalidEvent for a wrong name or digest."""
    snapshot = sealed.snapshot
    _check_named(SnapshotName, snapshot.name, snapshot.root, snapshot.manifest_digest)
    return SnapshotRegistration(
        name=snapshot.name, root=snapshot.root, manifest_digest=snapshot.manifest_digest
    )


def model_registration(version: trainer_pb2.ModelVersion) -> ModelRegistration:
    """Returns the model version to register. Raises InvalidEvent for a wrong name, digest or state."""
    digests = [version.digest, version.base_digest, version.adapter_digest]
    _check_named(ModelVersionName, version.name, *digests, *filter(None, [version.report_digest]))
    if not 1 <= version.state <= 5:
        raise InvalidEvent("BAD_STATE", f"{version.name}: state is {version.state}, must be 1 to 5")
    return ModelRegistration(
        name=version.name,
        version_digest=version.digest,
        base_digest=version.base_digest,
        adapter_digest=version.adapter_digest,
        report_digest=version.report_digest,
        state=int(version.state),
    )


def _check_named(kind: type[SnapshotName] | type[ModelVersionName], name: str, *digests: str) -> None:
    try:
        kind.parse(name)
        for digest in digests:
            digest_to_bytes(digest)
    except (InvalidName, InvalidDigest) as error:
        raise InvalidEvent("BAD_NAME", str(error)) from None
