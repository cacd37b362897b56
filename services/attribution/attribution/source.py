"""What an index is made of: the records a training manifest lists, and the control records of its
snapshots."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from attribution.clusters import CONTROL, TRAINED, IndexRow
from identity.snapshot import SnapshotLine, read_lines
from modelkit.prompt import PromptTemplate
from modelkit.training_manifest import ManifestSnapshot, TrainingManifest
from servicekit.objects import ObjectStore


class InconsistentSource(ValueError):
    """A training manifest and the snapshots it names do not fit together."""


@dataclass(frozen=True)
class SourceRecord:
    """A record of the index, with what is needed to make an example of it."""

    row: IndexRow
    record: Mapping[str, object]
    template: PromptTemplate

    @property
    def text(self) -> str:
        """What its contributor wrote and the model read: the values the template shows, in the order of their
        names, one a line."""
        return "\n".join(str(self.record[name]) for name in sorted(self.template.fields))


@dataclass(frozen=True)
class Source:
    """Everything an index is built from. `records` are in the manifest's order of snapshots, then by
    digest."""

    manifest: TrainingManifest
    records: tuple[SourceRecord, ...]
    payout_addresses: Mapping[str, str]
    """By contributor name; "" where none was given before the snapshot was sealed."""

    @property
    def max_tokens(self) -> int:
        """Tokens that training cut records to: what was cut was not learned."""
        return int(self.manifest.spec["max_tokens"])


def read_source(training_manifest_digest: str, store: ObjectStore) -> Source:
    """Raises NotFound for a missing object, InvalidTrainingManifest, CorruptSnapshot or
    InconsistentSource."""
    manifest = TrainingManifest.from_bytes(store.get_bytes(training_manifest_digest))
    records: list[SourceRecord] = []
    addresses: dict[str, str] = {}
    for snapshot in manifest.snapshots:
        records += _records(snapshot, list(read_lines(store.get_bytes(snapshot.records_digest))))
        addresses |= _payout_addresses(json.loads(store.get_bytes(snapshot.manifest_digest)))
    return Source(manifest, tuple(records), addresses)


def _records(snapshot: ManifestSnapshot, lines: list[SnapshotLine]) -> Iterator[SourceRecord]:
    """Trained and control records of one snapshot. Records of the train split that no step drew are
    neither."""
    template = PromptTemplate(snapshot.prompt, snapshot.completion)
    if template.digest != snapshot.template_digest:
        raise InconsistentSource(
            f"{snapshot.name}: the template is {template.digest}, not {snapshot.template_digest}"
        )
    contributors = {line.record_digest: line.contributor for line in lines}
    if unknown := set(snapshot.records) - set(contributors):
        raise InconsistentSource(f"{snapshot.name} has no record {min(unknown)}, which was trained on")
    for line in lines:
        seen = snapshot.records.get(line.record_digest, 0)
        if seen and line.split == CONTROL:
            raise InconsistentSource(f"{snapshot.name}: control record {line.record_digest} was trained on")
        if seen or line.split == CONTROL:
            row = IndexRow(
                line.record_digest,
                line.cluster,
                line.contributor,
                contributors.get(line.cluster, ""),
                TRAINED if seen else CONTROL,
                seen,
            )
            yield SourceRecord(row, line.record, template)


def _payout_addresses(manifest: Any) -> dict[str, str]:
    return {str(party["name"]): str(party["payout_address"]) for party in manifest["contributors"]}
