"""Collects a bundle from the services' public doors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from openledger.attribution.v1 import attribution_pb2
from openledger.common.v1.object_pb2 import ObjectChunk
from openledger.datanet.v1 import datanet_pb2
from openledger.settlement.v1 import settlement_pb2
from openledger.trainer.v1 import trainer_pb2

from identity.digest import canonical_json, sha256_bytes
from openledger_cli.bundle import layout
from openledger_cli.connection import Connections
from openledger_cli.output import as_dict
from servicekit.errors import CorruptObject, FailedPrecondition


def export_bundle(connections: Connections, inference: str, account: str, folder: Path) -> list[Path]:
    """Writes the bundle of one answer and of one account's payout into `folder`; returns its files.

    Args:
        inference: `inferences/{ulid}`, answered by a model version (not by the base) and in a batch.
        account: chain address with a reward under the newest accepted root.

    Raises:
        FailedPrecondition: the answer is not by a model version.
        DomainError: whatever a service answers.
    """
    limit = connections.deadline_s
    attribution = connections.attribution.GetAttribution(
        attribution_pb2.GetAttributionRequest(name=inference, wait=True), timeout=limit
    )
    if not attribution.model.adapter_digest:
        raise FailedPrecondition(
            "NO_MODEL_VERSION", f"{inference} was answered by the base: no data, no report", subject=inference
        )
    version = connections.trainer.GetModelVersion(
        trainer_pb2.GetModelVersionRequest(name=attribution.model.name), timeout=limit
    )
    report = connections.trainer.GetEvaluationReport(
        trainer_pb2.GetEvaluationReportRequest(digest=attribution.model.report_digest), timeout=limit
    )
    outcomes = download(
        connections.trainer.DownloadEvaluationOutcomes(
            trainer_pb2.DownloadEvaluationOutcomesRequest(digest=report.digest)
        )
    )
    snapshot = version.snapshots[0].snapshot
    parts = [
        download(
            connections.datanet.DownloadSnapshot(
                datanet_pb2.DownloadSnapshotRequest(name=snapshot, part=part)
            )
        )
        for part in (datanet_pb2.SNAPSHOT_PART_MANIFEST, datanet_pb2.SNAPSHOT_PART_RECORDS)
    ]
    inclusion = connections.settlement.GetInclusionProof(
        settlement_pb2.GetInclusionProofRequest(inference=inference), timeout=limit
    )
    settlement = connections.settlement.GetSettlement(
        settlement_pb2.GetSettlementRequest(inference=inference), timeout=limit
    )
    reward = connections.settlement.GetRewardProof(
        settlement_pb2.GetRewardProofRequest(address=account), timeout=limit
    )
    info = connections.settlement.GetSettlementInfo(settlement_pb2.GetSettlementInfoRequest(), timeout=limit)
    contents = {
        layout.MANIFEST: parts[0],
        layout.RECORDS: parts[1],
        layout.VERSION: canonical_json(as_dict(version)),
        layout.REPORT: report.canonical_json,
        layout.OUTCOMES: outcomes,
        layout.ATTRIBUTION: attribution.canonical_json,
        layout.INCLUSION: canonical_json(as_dict(inclusion)),
        layout.SETTLEMENT: canonical_json(as_dict(settlement)),
        layout.REWARD: canonical_json(as_dict(reward)),
    }
    contents[layout.INDEX] = canonical_json(
        {
            "schema": layout.SCHEMA,
            "inference": inference,
            "account": account,
            "registry_address": info.registry_address,
            "files": {name: sha256_bytes(content) for name, content in contents.items()},
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def download(chunks: Iterable[ObjectChunk]) -> bytes:
    """Joins a streamed object and checks its digest. Raises CorruptObject."""
    pieces: list[bytes] = []
    digest = ""
    for chunk in chunks:
        digest = chunk.digest
        pieces.append(chunk.data)
    content = b"".join(pieces)
    if sha256_bytes(content) != digest:
        raise CorruptObject(digest, sha256_bytes(content))
    return content
