"""Sealing: accepted records become clusters, clusters become splits, and any machine names the whole alike.

A split is a matter of the cluster, never of the record: a held-out record whose near-duplicate was trained on
would measure memory. Which split a cluster goes to follows from a salted hash of its digest: it does not
depend on the other records, and stays when records are added.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from datanet import cluster
from datanet.cluster import Document
from datanet.definition import Datanet
from identity import snapshot as snapshot_format
from identity.digest import sha256_bytes
from identity.snapshot import SnapshotLine
from servicekit.errors import InvalidArgument

TRAIN, HELD_OUT, CONTROL = "train", "held_out", "control"
SPLITS = (TRAIN, HELD_OUT, CONTROL)
"""Trained on; kept for evaluation; accepted and never trained on (the null of attribution)."""


@dataclass(frozen=True)
class AcceptedRecord:
    """A record that goes into a snapshot."""

    digest: str
    order: int
    """Place in the Datanet's order of acceptance."""
    contributor: str
    """Resource name."""
    content: bytes
    """Canonical JSON."""


@dataclass(frozen=True)
class SplitRule:
    """How clusters are dealt out. Fractions are of clusters, expected over the hash."""

    salt: str
    held_out_fraction: float = 0.2
    control_fraction: float = 0.1

    def validate(self) -> None:
        """Raises InvalidArgument when nothing would be left to train on."""
        total = self.held_out_fraction + self.control_fraction
        if not total < 1:
            message = f"held_out_fraction + control_fraction is {total:g}; it must be below 1"
            raise InvalidArgument("control_fraction", "sum", message, total)

    def split(self, cluster_digest: str) -> str:
        """The split of a cluster: sha256(salt, 0, digest) as a number in [0, 1) against the fractions."""
        hashed = sha256(self.salt.encode() + b"\0" + cluster_digest.encode()).digest()
        place = int.from_bytes(hashed[:8], "big") / 2**64
        if place < self.held_out_fraction:
            return HELD_OUT
        if place < self.held_out_fraction + self.control_fraction:
            return CONTROL
        return TRAIN

    def to_json(self) -> dict[str, object]:
        """As it stands in a snapshot's manifest."""
        return {
            "salt": self.salt,
            "held_out_fraction": self.held_out_fraction,
            "control_fraction": self.control_fraction,
        }


@dataclass(frozen=True)
class Count:
    """Records and clusters under one heading: a split, or a contributor (clusters it is the earliest in)."""

    name: str
    records: int
    clusters: int


@dataclass(frozen=True)
class Sealed:
    """A sealed set of records, before it gets a number."""

    data: bytes
    """The records object, as `identity.snapshot` writes it."""
    root: str
    record_count: int
    cluster_count: int
    near_duplicate_cluster_count: int
    """Clusters of more than one record."""
    splits: tuple[Count, ...]
    """In the order of SPLITS, all of them."""
    contributors: tuple[Count, ...]
    """By name; those with records in it."""

    @property
    def records_digest(self) -> str:
        """The digest of the records object."""
        return sha256_bytes(self.data)


def seal(records: Iterable[AcceptedRecord], datanet: Datanet, rule: SplitRule) -> Sealed:
    """The snapshot of these records. The order in which they are given does not matter."""
    by_digest = {record.digest: record for record in records}
    values = {digest: json.loads(record.content) for digest, record in by_digest.items()}
    documents = (
        Document(digest, record.order, datanet.schema.prompt_text(values[digest]))
        for digest, record in by_digest.items()
    )
    clusters = cluster.cluster(documents, datanet.policy.near_duplicate_threshold)
    splits = {name: rule.split(name) for name in set(clusters.values())}
    data = snapshot_format.write_lines(
        SnapshotLine(digest, clusters[digest], splits[clusters[digest]], record.contributor, values[digest])
        for digest, record in by_digest.items()
    )
    sizes = Counter(clusters.values())
    return Sealed(
        data=data,
        root=snapshot_format.root(data),
        record_count=len(by_digest),
        cluster_count=len(sizes),
        near_duplicate_cluster_count=sum(size > 1 for size in sizes.values()),
        splits=_split_counts(clusters, splits),
        contributors=_contributor_counts(by_digest, clusters),
    )


def _split_counts(clusters: Mapping[str, str], splits: Mapping[str, str]) -> tuple[Count, ...]:
    records = Counter(splits[name] for name in clusters.values())
    per_cluster = Counter(splits.values())
    return tuple(Count(split, records[split], per_cluster[split]) for split in SPLITS)


def _contributor_counts(
    records: Mapping[str, AcceptedRecord], clusters: Mapping[str, str]
) -> tuple[Count, ...]:
    total = Counter(record.contributor for record in records.values())
    originals = Counter(records[name].contributor for name in set(clusters.values()))
    return tuple(Count(name, total[name], originals[name]) for name in sorted(total))
