"""Reads the records of an index: those that a training manifest lists, and the control records of its snapshots."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from attribution.clusters import CONTROL, TRAINED, IndexRow
from identity.snapshot import SnapshotLine, read_lines
from modelkit.prompt import PromptTemplate
from modelkit.splits import JointSplits
from modelkit.training_manifest import ManifestSnapshot, TrainingManifest
from servicekit.objects import ObjectStore


class InconsistentSource(ValueError):
    """A training manifest contradicts the snapshots that it names."""


@dataclass(frozen=True)
class SourceRecord:
    """A record of the index, with everything that its training example needs."""

    row: IndexRow
    record: Mapping[str, object]
    template: PromptTemplate

    @property
    def text(self) -> str:
        """Returns the text that the contributor wrote and the model read: the template's values, by name, one per line."""
        return "\n".join(str(self.record[name]) for name in sorted(self.template.fields))


@dataclass(frozen=True)
class Source:
    """The input of an index. `records` are in the manifest's order of snapshots, then by digest."""

    manifest: TrainingManifest
    records: tuple[SourceRecord, ...]
    payout_addresses: Mapping[str, str]
    """By contributor name; "" for a contributor without address when the snapshot was sealed."""

    @property
    def max_tokens(self) -> int:
        """Returns the length that training truncated records to, in tokens: the rest was not learned."""
        return int(self.manifest.spec["max_tokens"])


def read_source(training_manifest_digest: str, store: ObjectStore) -> Source:
    """Returns the input of an index.

    Raises NotFound for a missing object, InvalidTrainingManifest, CorruptSnapshot or InconsistentSource.
    """
    manifest = TrainingManifest.from_bytes(store.get_bytes(training_manifest_digest))
    records: list[SourceRecord] = []
    addresses: dict[str, str] = {}
    lines = [list(read_lines(store.get_bytes(snapshot.records_digest))) for snapshot in manifest.snapshots]
    splits = JointSplits(lines)
    for snapshot, mine in zip(manifest.snapshots, lines, strict=True):
        if unknown := set(snapshot.records) - {line.record_digest for line in mine}:
            raise InconsistentSource(f"{snapshot.name} has no record {min(unknown)}, which was trained on")
    trained = {
        splits.cluster(digest)
        for snapshot in manifest.snapshots
        for digest, times in snapshot.records.items()
        if times
    }
    for snapshot, mine in zip(manifest.snapshots, lines, strict=True):
        for record in _records(snapshot, mine):
            # Versions of before the splits were joined may have learned a control of one snapshot from another.
            if record.row.split == TRAINED or splits.cluster(record.row.record_digest) not in trained:
                records.append(record)
        addresses |= _payout_addresses(json.loads(store.get_bytes(snapshot.manifest_digest)))
    return Source(manifest, tuple(records), addresses)


def _records(snapshot: ManifestSnapshot, lines: list[SnapshotLine]) -> Iterator[SourceRecord]:
    """Yields trained and control records of one snapshot. Records of the train split that no step drew are neither."""
    template = PromptTemplate(snapshot.prompt, snapshot.completion)
    if template.digest != snapshot.template_digest:
        raise InconsistentSource(
            f"{snapshot.name}: the template is {template.digest}, not {snapshot.template_digest}"
        )
    contributors = {line.record_digest: line.contributor for line in lines}
    for line in lines:
        seen = snapshot.records.get(line.record_digest, 0)
        if seen and line.split == CONTROL:
            raise InconsistentSource(f"{snapshot.name}: control record {line.record_digest} was trained on")
        if seen or line.split == CONTROL:
            row = IndexRow(
                record_digest=line.record_digest,
                cluster=line.cluster,
                contributor=line.contributor,
                credited=contributors.get(line.cluster, ""),
                split=TRAINED if seen else CONTROL,
                times_seen=seen,
            )
            yield SourceRecord(row, line.record, template)


def _payout_addresses(manifest: Any) -> dict[str, str]:
    return {str(party["name"]): str(party["payout_address"]) for party in manifest["contributors"]}
