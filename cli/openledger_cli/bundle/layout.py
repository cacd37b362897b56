"""The files of a bundle. Every file but the records is canonical JSON, so that no byte can change unseen."""

from __future__ import annotations

SCHEMA = "openledger.bundle.v2"
INDEX = "bundle.json"
MANIFEST = "snapshot-manifest.json"
RECORDS = "snapshot-records.jsonl"
VERSION = "model-version.json"
REPORT = "evaluation-report.json"
OUTCOMES = "evaluation-outcomes.json"
POLICY = "gate-policy.json"
PROMOTIONS = "promotions.json"
ATTRIBUTION = "attribution-record.json"
INCLUSION = "inclusion-proof.json"
SETTLEMENT = "settlement.json"
REWARD = "reward-proof.json"
FILES = (
    MANIFEST,
    RECORDS,
    VERSION,
    REPORT,
    OUTCOMES,
    POLICY,
    PROMOTIONS,
    ATTRIBUTION,
    INCLUSION,
    SETTLEMENT,
    REWARD,
)
