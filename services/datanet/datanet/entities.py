"""What a Datanet holds: its contributors, their records, its sealed snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from datanet.snapshot import Count
from identity.digest import digest_hex


class RecordState(IntEnum):
    """Where a record stands. The numbers are those of the API's enum.

    PENDING -> ACCEPTED or REJECTED by a person; ACCEPTED -> REJECTED by a person; REJECTED by a person -> ACCEPTED;
    any of these but a rule's REJECTED -> WITHDRAWN, which is final.
    """

    PENDING = 1
    ACCEPTED = 2
    REJECTED = 3
    WITHDRAWN = 4


@dataclass(frozen=True)
class Contributor:
    """Who contributes: a principal, an address to pay, consent to a licence."""

    name: str
    """`datanets/{datanet}/contributors/{contributor}`."""
    principal: str
    display_name: str
    payout_address: str
    """EIP-55 checksummed, or "" until one is given."""
    consent_licence: str
    consent_time: datetime
    accepted_count: int = 0
    pending_count: int = 0
    rejected_count: int = 0


@dataclass(frozen=True)
class StoredRecord:
    """A contribution as it is kept."""

    datanet: str
    """Resource name."""
    digest: str
    """Of the canonical JSON; of the bytes as they came where they are no record."""
    contributor: str
    """Resource name."""
    state: RecordState
    rule: str
    """The rule that rejected it; "" when none did."""
    field: str
    reason: str
    content: bytes
    """Canonical JSON; empty where it is not kept."""
    create_time: datetime
    order: int = 0
    """Place in the Datanet's order of arrival; set by the store."""

    @property
    def name(self) -> str:
        """`datanets/{datanet}/records/{hex}`."""
        return f"{self.datanet}/records/{digest_hex(self.digest)}"


@dataclass(frozen=True)
class Snapshot:
    """A sealed set of records, with its number."""

    datanet: str
    """Resource name."""
    number: int
    root: str
    manifest_digest: str
    records_digest: str
    record_count: int
    cluster_count: int
    near_duplicate_cluster_count: int
    splits: tuple[Count, ...]
    contributors: tuple[Count, ...]
    rejected: tuple[tuple[str, int], ...]
    """(rule, records) by rule."""
    seal_time: datetime

    @property
    def name(self) -> str:
        """`datanets/{datanet}/snapshots/{number}`."""
        return f"{self.datanet}/snapshots/{self.number}"
