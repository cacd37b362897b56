"""Attributed answers as the attribution service would publish them, for tests of settlement."""

from __future__ import annotations

from openledger.attribution.v1 import attribution_pb2
from ulid import ULID

from identity.digest import canonical_json, sha256_bytes

DATANET = "datanets/threat-intel"
ADDRESSES = {
    "eset": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
    "unit42": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    "talos": "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
}
TREASURY = "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65"


def scored(
    *,
    inference: str = "",
    shares: dict[str, int] | None = None,
    input_tokens: int = 120,
    output_tokens: int = 30,
    owner: str = "vendor",
    addresses: dict[str, str] | None = None,
    treasury: str = TREASURY,
) -> attribution_pb2.AttributionScored:
    """One answer of a tuned model; `shares` in ppm by contributor, the rest is unattributed."""
    inference = inference or f"inferences/{ULID()}"
    parts = {"eset": 500_000, "unit42": 300_000} if shares is None else shares
    known = ADDRESSES if addresses is None else addresses
    record = canonical_json({"inference": inference, "shares": parts})
    event = attribution_pb2.AttributionScored(treasury_addresses={DATANET: treasury})
    attribution = event.attribution
    attribution.name = inference.replace("inferences", "attributions")
    attribution.inference = inference
    attribution.canonical_json = record
    attribution.digest = sha256_bytes(record)
    attribution.model.base_digest = sha256_bytes(b"base")
    attribution.model.version_digest = sha256_bytes(b"version")
    attribution.model.report_digest = sha256_bytes(b"report")
    attribution.usage.input_tokens = input_tokens
    attribution.usage.output_tokens = output_tokens
    attribution.model_owner = owner
    attribution.unattributed_ppm = 1_000_000 - sum(parts.values())
    for contributor, ppm in parts.items():
        attribution.shares.add(
            datanet=DATANET,
            contributor=f"{DATANET}/contributors/{contributor}",
            ppm=ppm,
            payout_address=known.get(contributor, ""),
        )
    return event
