"""Writes identity/vectors/leaves.json with a second, general encoder (eth_abi), not with identity.leaf.

Run it only when the encoding changes on purpose: every proof ever given out depends on these bytes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from eth_abi.abi import encode
from eth_utils.crypto import keccak

TARGET = Path(__file__).parent / "identity" / "vectors" / "leaves.json"
LEDGERS = ("0x5fbdb2315678afecb367f032d93f642f64180aa3", "0x" + "ff" * 20)
ATTRIBUTION_TYPES = [
    "uint256", "address", "uint64", "uint64", "bytes32", "bytes32", "bytes32", "bytes32", "uint256",
]  # fmt: skip
REWARD_TYPES = ["uint256", "address", "address", "uint256"]


def attribution(
    *, chain: int, ledger: str, seq: int, index: int, inference: str, fee: int, base: bool = False
) -> dict[str, object]:
    """One attribution leaf: its fields as people write them, its encoding and its hash."""
    digests = [
        hashlib.sha256(f"{kind} {inference}".encode()).digest() for kind in ("model", "report", "record")
    ]
    if base:  # a base model has no evaluation report
        digests[1] = bytes(32)
    values = [chain, ledger, seq, index, keccak(text=inference), *digests, fee]
    encoded = encode(ATTRIBUTION_TYPES, values)
    return {
        "chain_id": str(chain),
        "ledger": ledger,
        "batch_seq": str(seq),
        "event_index": str(index),
        "inference": inference,
        "model_version_digest": "sha256:" + digests[0].hex(),
        "report_digest": "" if base else "sha256:" + digests[1].hex(),
        "record_digest": "sha256:" + digests[2].hex(),
        "fee_paid": str(fee),
        "encoded": "0x" + encoded.hex(),
        "leaf": "0x" + keccak(keccak(encoded)).hex(),
    }


def reward(chain: int, distributor: str, account: str, amount: int) -> dict[str, object]:
    """One reward leaf: its fields as people write them, its encoding and its hash."""
    encoded = encode(REWARD_TYPES, [chain, distributor, account, amount])
    return {
        "chain_id": str(chain),
        "distributor": distributor,
        "account": account,
        "cumulative_amount": str(amount),
        "encoded": "0x" + encoded.hex(),
        "leaf": "0x" + keccak(keccak(encoded)).hex(),
    }


def main() -> None:
    """Writes the file."""
    vectors = {
        "attribution": [
            attribution(
                chain=31337,
                ledger=LEDGERS[0],
                seq=0,
                index=0,
                inference="inferences/01JDGXG4ZXQ8V5E7YB1T3M9KCN",
                fee=123_000_000_000_000,
            ),
            attribution(
                chain=901,
                ledger=LEDGERS[0],
                seq=7,
                index=70_000,
                inference="inferences/01JDGXG4ZXQ8V5E7YB1T3M9KCP",
                fee=0,
                base=True,
            ),
            attribution(
                chain=2**256 - 1,
                ledger=LEDGERS[1],
                seq=2**64 - 1,
                index=2**64 - 1,
                inference="inferences/ünïcode",
                fee=2**256 - 1,
            ),
        ],
        "reward": [
            reward(31337, LEDGERS[0], "0x70997970c51812dc3a010c7d01b50e0d17dc79c8", 10**18),
            reward(2**256 - 1, LEDGERS[1], "0x" + "00" * 20, 2**256 - 1),
        ],
    }
    TARGET.write_text(json.dumps(vectors, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
