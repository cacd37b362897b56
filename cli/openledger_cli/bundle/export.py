"""Collects a bundle from the services' public APIs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from openledger.attribution.v1 import attribution_pb2
from openledger.datanet.v1 import datanet_pb2
from openledger.settlement.v1 import settlement_pb2
from openledger.trainer.v1 import trainer_pb2

from identity.digest import canonical_json, sha256_bytes
from identity.names import ModelName, ModelVersionName
from openledger_cli.bundle import layout
from openledger_cli.output import as_dict
from openledger_client import Client
from openledger_client.downloads import Download
from openledger_client.errors import FailedPrecondition
from openledger_client.paging import pages


def export_bundle(client: Client, inference: str, account: str, folder: Path) -> list[Path]:
    """Writes the bundle of one answer and of one account's payout into `folder`; returns its files.

    Args:
        inference: `inferences/{ulid}`, answered by a model version (not by the base) and in a batch.
        account: chain address with a reward under the newest accepted root.

    Raises:
        FailedPrecondition: the answer is not by a model version.
        OpenLedgerError: whatever a service answers.
    """
    attribution = client.attribution.GetAttribution(
        attribution_pb2.GetAttributionRequest(name=inference, wait=True)
    )
    if not attribution.model.adapter_digest:
        raise FailedPrecondition(
            f"{inference} was answered by the base: no data, no report",
            reason="NO_MODEL_VERSION",
            subject=inference,
        )
    version = client.trainer.GetModelVersion(trainer_pb2.GetModelVersionRequest(name=attribution.model.name))
    report = client.trainer.GetEvaluationReport(
        trainer_pb2.GetEvaluationReportRequest(digest=attribution.model.report_digest)
    )
    outcomes = Download(
        client.trainer.DownloadEvaluationOutcomes,
        trainer_pb2.DownloadEvaluationOutcomesRequest(digest=report.digest),
        digest=report.outcomes_digest,
    ).read()
    snapshot = version.snapshots[0].snapshot
    parts = [
        Download(
            client.datanet.DownloadSnapshot, datanet_pb2.DownloadSnapshotRequest(name=snapshot, part=part)
        ).read()
        for part in (datanet_pb2.SNAPSHOT_PART_MANIFEST, datanet_pb2.SNAPSHOT_PART_RECORDS)
    ]
    inclusion = client.settlement.GetInclusionProof(
        settlement_pb2.GetInclusionProofRequest(inference=inference)
    )
    settlement = client.settlement.GetSettlement(settlement_pb2.GetSettlementRequest(inference=inference))
    reward = client.settlement.GetRewardProof(settlement_pb2.GetRewardProofRequest(address=account))
    info = client.settlement.GetSettlementInfo(settlement_pb2.GetSettlementInfoRequest())
    contents = {
        layout.MANIFEST: parts[0],
        layout.RECORDS: parts[1],
        layout.VERSION: canonical_json(as_dict(version)),
        layout.REPORT: report.canonical_json,
        layout.OUTCOMES: outcomes,
        layout.POLICY: _policy(report.canonical_json),
        layout.PROMOTIONS: canonical_json(_promotions(client, version.name)),
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


def _policy(report: bytes) -> bytes:
    """Returns the effective gate policy that a report was judged by; null for a report of a release without policies."""
    return canonical_json(json.loads(report).get("policy"))


def _promotions(client: Client, version: str) -> list[dict[str, Any]]:
    """Returns the entries of the model's promotion history, in order, each as the content whose sha256 is its hash."""
    model = str(ModelName(ModelVersionName.parse(version).model))
    found = [
        json.loads(entry.canonical_json)
        for page in pages(client.trainer.ListPromotions, trainer_pb2.ListPromotionsRequest(parent=model))
        for entry in page.promotions
    ]
    return found[::-1]
