"""The one byte encoding of an attribution leaf and of a reward leaf.

A leaf is keccak256(keccak256(abi.encode(...))), as OpenZeppelin's StandardMerkleTree hashes its leaves. All
fields are static ABI types, so abi.encode is their 32-byte words in order; packing them here is 75 times
faster than a general ABI encoder, which matters at 10,000 events a batch. The chain id and the contract's
address are part of a leaf: a proof from one chain or deployment means nothing on another.

`identity/vectors/leaves.json` holds encodings that the Solidity tests, the Python tests and the verifier
all read.
"""

from __future__ import annotations

from dataclasses import dataclass

from identity.digest import digest_to_bytes
from identity.keccak import keccak256

_UINT64 = 1 << 64
_UINT256 = 1 << 256


class InvalidLeaf(ValueError):
    """A leaf's field does not fit its ABI type. `field` names it."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule


@dataclass(frozen=True, kw_only=True)
class AttributionLeaf:
    """One attributed answer in a batch.

    abi.encode(uint256, address, uint64, uint64, bytes32, bytes32, bytes32, bytes32, uint256), in field order.
    """

    chain_id: int
    ledger: str
    """The AttributionLedger's address, 0x and 40 hex digits."""
    batch_seq: int
    event_index: int
    """The event's place in the ledger's whole history, from 0; not its place in the batch."""
    inference: str
    """The inference's resource name, `inferences/{ulid}`; the leaf carries keccak256 of its UTF-8 bytes."""
    model_version_digest: str
    """The model version's digest, or the base model's when the base answered."""
    report_digest: str
    """The evaluation report's digest; "" (32 zero bytes in the leaf) when the base answered."""
    record_digest: str
    """sha256 of the attribution record's canonical JSON."""
    fee_paid: int
    """In base units: 10^-18 OPEN."""

    def encode(self) -> bytes:
        """The 288 bytes of abi.encode. Raises InvalidLeaf."""
        return b"".join(
            (
                _uint("chain_id", self.chain_id, _UINT256),
                _address("ledger", self.ledger),
                _uint("batch_seq", self.batch_seq, _UINT64),
                _uint("event_index", self.event_index, _UINT64),
                keccak256(self.inference.encode("utf-8")),
                _digest("model_version_digest", self.model_version_digest),
                _digest("report_digest", self.report_digest) if self.report_digest else bytes(32),
                _digest("record_digest", self.record_digest),
                _uint("fee_paid", self.fee_paid, _UINT256),
            )
        )

    def hash(self) -> bytes:
        """The 32 bytes in the tree."""
        return keccak256(keccak256(self.encode()))


@dataclass(frozen=True)
class RewardLeaf:
    """One account under a reward root: abi.encode(uint256, address, address, uint256), in field order."""

    chain_id: int
    distributor: str
    account: str
    cumulative_amount: int
    """All that the account has ever earned, in base units; the contract pays the part not yet claimed."""

    def encode(self) -> bytes:
        """The 128 bytes of abi.encode. Raises InvalidLeaf."""
        return b"".join(
            (
                _uint("chain_id", self.chain_id, _UINT256),
                _address("distributor", self.distributor),
                _address("account", self.account),
                _uint("cumulative_amount", self.cumulative_amount, _UINT256),
            )
        )

    def hash(self) -> bytes:
        """The 32 bytes in the tree."""
        return keccak256(keccak256(self.encode()))


def name_hash(name: str) -> bytes:
    """keccak256 of a resource name's UTF-8 bytes: how the Registry keys snapshots."""
    return keccak256(name.encode("utf-8"))


def _uint(field: str, value: int, bound: int) -> bytes:
    if not 0 <= value < bound:
        raise InvalidLeaf(field, f"{value} is not between 0 and 2^{bound.bit_length() - 1} - 1")
    return value.to_bytes(32, "big")


def _address(field: str, text: str) -> bytes:
    if len(text) != 42 or not text.startswith("0x"):
        raise InvalidLeaf(field, f"{text!r} is not 0x and 40 hex digits")
    try:
        return bytes(12) + bytes.fromhex(text[2:])
    except ValueError:
        raise InvalidLeaf(field, f"{text!r} is not 0x and 40 hex digits") from None


def _digest(field: str, digest: str) -> bytes:
    try:
        return digest_to_bytes(digest)
    except ValueError as error:
        raise InvalidLeaf(field, str(error)) from None
