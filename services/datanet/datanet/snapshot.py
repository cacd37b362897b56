"""What a snapshot is: records form clusters, clusters are assigned to splits, and the root names the result.

Splits are assigned to clusters, never to records: a held-out record whose near-duplicate was trained on would measure
memorisation. A salted hash of the cluster's digest decides its split, so it does not depend on the other records, and
does not change when records are added.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from servicekit.errors import InvalidArgument

TRAIN, HELD_OUT, CONTROL = "train", "held_out", "control"
SPLITS = (TRAIN, HELD_OUT, CONTROL)
"""For training; for evaluation; accepted but never trained on (attribution's null distribution)."""


@dataclass(frozen=True)
class AcceptedRecord:
    """A record of a snapshot."""

    digest: str
    order: int
    """Position in the Datanet's order of arrival."""
    contributor: str
    """Resource name."""
    content: bytes
    """Canonical JSON."""


@dataclass(frozen=True)
class SplitRule:
    """How clusters are assigned to splits. Fractions are of clusters, in expectation over the hash."""

    salt: str
    held_out_fraction: float = 0.2
    control_fraction: float = 0.1

    def validate(self) -> None:
        """Raises InvalidArgument if no training data would remain."""
        total = self.held_out_fraction + self.control_fraction
        if not total < 1:
            message = f"held_out_fraction + control_fraction is {total:g}; it must be below 1"
            raise InvalidArgument("control_fraction", "sum", message, total)

    def split(self, cluster_digest: str) -> str:
        """Returns the split of a cluster: sha256(salt, 0, digest) as a number in [0, 1), compared with the fractions."""
        hashed = sha256(self.salt.encode() + b"\0" + cluster_digest.encode()).digest()
        position = int.from_bytes(hashed[:8], "big") / 2**64
        if position < self.held_out_fraction:
            return HELD_OUT
        if position < self.held_out_fraction + self.control_fraction:
            return CONTROL
        return TRAIN

    def to_json(self) -> dict[str, object]:
        """Returns the JSON form that a snapshot's manifest contains."""
        return {
            "salt": self.salt,
            "held_out_fraction": self.held_out_fraction,
            "control_fraction": self.control_fraction,
        }


@dataclass(frozen=True)
class Count:
    """Records and clusters of a split, or of a contributor (clusters whose earliest record it contributed)."""

    name: str
    records: int
    clusters: int


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """A sealed set of records, before it gets a number."""

    records_digest: str
    """Of the records object, as `identity.snapshot` describes it."""
    root: str
    record_count: int
    cluster_count: int
    near_duplicate_cluster_count: int
    """Clusters of more than one record."""
    splits: tuple[Count, ...]
    """All of SPLITS, in that order."""
    contributors: tuple[Count, ...]
    """By name; only contributors with records in the snapshot."""
