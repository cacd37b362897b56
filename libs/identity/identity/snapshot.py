"""The bytes of a sealed snapshot's records object, and the root that names it.

JSON Lines: one canonical JSON object a line, every line ended by one newline, in ascending order of record
digest, each digest once. The root is the RFC 6962 tree over the lines' bytes without their newlines. The
same records give the same bytes and the same root on any machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from identity import merkle
from identity.digest import canonical_json, digest_from_bytes, digest_json, digest_to_bytes, is_digest


class CorruptSnapshot(ValueError):
    """The bytes are not those of a snapshot. `line` counts from 1; `rule` says what is broken."""

    def __init__(self, line: int, rule: str) -> None:
        super().__init__(f"snapshot line {line}: {rule}")
        self.line = line
        self.rule = rule


@dataclass(frozen=True, kw_only=True)
class SnapshotLine:
    """One record of a snapshot."""

    record_digest: str
    """digest_json(record)."""
    cluster: str
    """The digest of the near-duplicate cluster's earliest member."""
    split: str
    """train, held_out or control, in the words of the Datanet."""
    contributor: str
    """The contributor's resource name, `datanets/{d}/contributors/{c}`."""
    record: Mapping[str, object]
    """The record as contributed."""

    def encode(self) -> bytes:
        """The line's bytes, without a newline. Raises NotCanonical."""
        return canonical_json(
            {
                "cluster": self.cluster,
                "contributor": self.contributor,
                "record": self.record,
                "record_digest": self.record_digest,
                "split": self.split,
            }
        )


def write_lines(lines: Iterable[SnapshotLine]) -> bytes:
    """The records object's bytes. Sorts; raises CorruptSnapshot for a wrong or repeated record digest."""
    ordered = sorted(lines, key=lambda line: line.record_digest)
    for number, line in enumerate(ordered, 1):
        if digest_json(line.record) != line.record_digest:
            raise CorruptSnapshot(number, f"{line.record_digest} is not the record's digest")
        if number > 1 and ordered[number - 2].record_digest == line.record_digest:
            raise CorruptSnapshot(number, f"{line.record_digest} stands twice")
    return b"".join(line.encode() + b"\n" for line in ordered)


def read_lines(data: bytes) -> Iterator[SnapshotLine]:
    """The records of a records object, each checked: form, order, digest. Raises CorruptSnapshot."""
    previous = ""
    for number, raw in enumerate(line_bytes(data), 1):
        line = _parse(number, raw)
        if line.record_digest <= previous:
            raise CorruptSnapshot(number, f"{line.record_digest} does not follow {previous}")
        if digest_json(line.record) != line.record_digest:
            raise CorruptSnapshot(number, f"{line.record_digest} is not the record's digest")
        if line.encode() != raw:
            raise CorruptSnapshot(number, "is not in canonical form")
        previous = line.record_digest
        yield line


def line_bytes(data: bytes) -> list[bytes]:
    """The tree's leaves: each line without its newline. Raises CorruptSnapshot when the last one is cut."""
    if not data:
        return []
    lines = data.split(b"\n")
    if lines.pop() != b"":
        raise CorruptSnapshot(len(lines) + 1, "the last line has no newline")
    return lines


def root(data: bytes) -> str:
    """The snapshot's root as `sha256:<hex>`, over the bytes of a records object."""
    return digest_from_bytes(merkle.root(line_bytes(data)))


def proof(data: bytes, index: int) -> list[bytes]:
    """The sibling hashes of line `index` (from 0). Raises IndexError."""
    return merkle.proof(line_bytes(data), index)


def verify(root: str, line: bytes, proof: Sequence[bytes], index: int, size: int) -> bool:
    """Whether a line's bytes stand at `index` in the snapshot of `size` records with this root."""
    return merkle.verify(digest_to_bytes(root), line, proof, index, size)


def _parse(number: int, raw: bytes) -> SnapshotLine:
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise CorruptSnapshot(number, f"is not JSON: {error}") from None
    keys = {"record_digest", "cluster", "split", "contributor", "record"}
    if not isinstance(value, dict) or set(value) != keys:
        raise CorruptSnapshot(number, f"does not have exactly the keys {sorted(keys)}")
    if not all(isinstance(value[key], str) for key in keys - {"record"}) or not isinstance(
        value["record"], dict
    ):
        raise CorruptSnapshot(number, "record must be an object and the other values strings")
    if not is_digest(value["record_digest"]):
        raise CorruptSnapshot(number, f"{value['record_digest']!r} is not a digest")
    return SnapshotLine(**value)
