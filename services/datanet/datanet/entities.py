"""What a Datanet contains: contributors, their records, sealed snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from datanet.snapshot import Count
from identity.digest import digest_hex


class RecordState(IntEnum):
    """State of a record. The numbers are those of the API's enum.

    PENDING -> ACCEPTED or REJECTED by a person; ACCEPTED -> REJECTED by a person; REJECTED by a person -> ACCEPTED;
    any of these except REJECTED by a rule -> WITHDRAWN, which is final.
    """

    PENDING = 1
    ACCEPTED = 2
    REJECTED = 3
    WITHDRAWN = 4


@dataclass(frozen=True, kw_only=True)
class Contributor:
    """A contributor: a principal, a payout address, consent to a licence."""

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


@dataclass(frozen=True, kw_only=True)
class StoredRecord:
    """A contribution as it is stored."""

    datanet: str
    """Resource name."""
    digest: str
    """Of the canonical JSON; of the bytes as sent if they are not a record."""
    contributor: str
    """Resource name."""
    state: RecordState
    rule: str
    """The rule that rejected it; `withdrawn` if its contributor withdrew it; "" otherwise."""
    field: str
    reason: str
    content: bytes
    """Canonical JSON; empty where it is not stored, or not part of the view."""
    create_time: datetime
    order: int = 0
    """Position in the Datanet's order of arrival; set by the store."""

    @property
    def name(self) -> str:
        """`datanets/{datanet}/records/{hex}`."""
        return f"{self.datanet}/records/{digest_hex(self.digest)}"


MAX_SHOWN_CONTRIBUTORS = 1000
"""Contributors that a snapshot shows. A Datanet may have 100,000, which fit neither into a message nor into an event."""


@dataclass(frozen=True, kw_only=True)
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
    """At most MAX_SHOWN_CONTRIBUTORS, by name: those with the most records. The manifest has all."""
    contributor_count: int
    rejected: tuple[tuple[str, int], ...]
    """(rule, records) by rule."""
    seal_time: datetime
    read_time: datetime | None
    """When its records were read; None in snapshots of earlier releases."""

    @property
    def name(self) -> str:
        """`datanets/{datanet}/snapshots/{number}`."""
        return f"{self.datanet}/snapshots/{self.number}"


@dataclass(frozen=True)
class Submission:
    """One record as the client sent it."""

    contributor: str
    """Resource name; "" means the contributor of the previous record."""
    sequence: int
    """The client's number of this record."""
    content: bytes
