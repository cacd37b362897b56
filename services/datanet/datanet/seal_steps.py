"""Turns the accepted records of a Datanet into a sealed set, in steps that leave files.

Each step writes its files and then a mark. A step with a mark is not done again: a sealing that was killed continues after its
last complete step, with the records that it began with. Memory is bounded by about 200 bytes a record, whatever its length.

copy      the accepted records, in one consistent state
sketch    what near-duplicate search needs of each text
cluster   the earliest member of each record's cluster
write     the records object with its root
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from datanet import near_duplicates
from datanet.definition import Datanet
from datanet.snapshot import SPLITS, AcceptedRecord, Count, Sealed, SplitRule
from datanet.spool import Spool, write_spool
from identity.digest import canonical_json, sha256_bytes
from identity.merkle import RootOfHashes, leaf_hash
from identity.snapshot import CorruptSnapshot
from servicekit.database import utc_now
from servicekit.objects import ObjectStore

_CHUNK_BYTES = 1 << 20
_CHECK_EVERY = 1000

T = TypeVar("T")
Progress = Callable[[str, int, int], None]
"""Called often with the step, what is done of it and what there is to do; may raise to end the sealing."""


def seal(
    records: Callable[[], Iterable[AcceptedRecord]],
    datanet: Datanet,
    rule: SplitRule,
    *,
    folder: Path,
    objects: ObjectStore,
    progress: Progress,
    expected: int = 0,
) -> Sealed | None:
    """Returns the sealed set of these records, in the order of arrival; None if there are none.

    `folder` keeps the steps' files; the caller deletes it. `expected`: about how many records there are, for `progress`.
    """
    if not _done(folder, "copy"):
        began = utc_now()
        write_spool(_counted(records(), "copy", expected, progress), folder)
        _mark(folder, "copy", began.isoformat())
    with Spool(folder) as spool:
        if not len(spool):
            return None
        if not _done(folder, "sketch"):
            texts = _texts(spool, datanet)
            near_duplicates.write_sketches(_counted(texts, "sketch", len(spool), progress), folder)
            _mark(folder, "sketch")
        if not _done(folder, "cluster"):
            roots = near_duplicates.find_clusters(
                folder,
                datanet.policy.near_duplicate_threshold,
                lambda done, of: progress("cluster", done, of),
            )
            np.save(folder / "roots.npy", roots)
            _mark(folder, "cluster")
        return _write(spool, np.load(folder / "roots.npy"), rule, objects, progress)


def read_time(folder: Path) -> datetime:
    """Returns when the records of a sealing in this folder were read."""
    return datetime.fromisoformat((folder / "copy.done").read_text().partition("\n")[2])


def _done(folder: Path, step: str) -> bool:
    mark = folder / f"{step}.done"
    return mark.exists() and mark.read_text().partition("\n")[0] == _boot()


def _mark(folder: Path, step: str, note: str = "") -> None:
    """The files before it are not flushed to the disk: they outlive the process, not the machine's power. So the mark names
    the boot."""
    (folder / f"{step}.done").write_text(f"{_boot()}\n{note}")


@cache
def _boot() -> str:
    """Returns what identifies this boot of the machine; where nothing does, this process."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return uuid4().hex


def _counted(items: Iterable[T], step: str, total: int, progress: Progress) -> Iterator[T]:
    for number, item in enumerate(items):
        if number % _CHECK_EVERY == 0:
            progress(step, number, total)
        yield item


def _texts(spool: Spool, datanet: Datanet) -> Iterator[str]:
    for content in spool.contents():
        yield datanet.schema.prompt_text(json.loads(content))


def _write(
    spool: Spool, roots: npt.NDArray[np.int64], rule: SplitRule, objects: ObjectStore, progress: Progress
) -> Sealed:
    sizes = np.bincount(roots, minlength=len(roots))
    names = np.flatnonzero(sizes)
    split_of = np.zeros(len(roots), np.int8)
    for name in names:
        split_of[name] = SPLITS.index(rule.split(spool.digest(int(name))))
    root = RootOfHashes()

    def chunks() -> Iterator[bytes]:
        lines = bytearray()
        order = _counted(spool.by_digest(), "write", len(spool), progress)
        for line in _lines(spool, order, roots, split_of):
            root.add(leaf_hash(line))
            lines += line
            lines += b"\n"
            if len(lines) >= _CHUNK_BYTES:
                yield bytes(lines)
                lines.clear()
        yield bytes(lines)

    digest = objects.put_chunks(chunks())
    return Sealed(
        records_digest=digest,
        root=f"sha256:{root.root().hex()}",
        record_count=len(spool),
        cluster_count=len(names),
        near_duplicate_cluster_count=int((sizes > 1).sum()),
        splits=_split_counts(split_of[roots], split_of[names]),
        contributors=_contributor_counts(spool, names),
    )


def _lines(
    spool: Spool,
    order: Iterable[np.int64],
    roots: npt.NDArray[np.int64],
    split_of: npt.NDArray[np.int8],
) -> Iterator[bytes]:
    """Yields the lines of `identity.snapshot.SnapshotLine.encode`, without encoding the records again: what has a record's digest
    is its canonical JSON. Raises CorruptSnapshot where stored bytes have another digest."""
    contributors = [canonical_json(name) for name in spool.contributors]
    numbers = spool.contributor_numbers()
    for number, each in enumerate(order, 1):
        index = int(each)
        content, digest, root = spool.content(index), spool.digest(index), int(roots[index])
        if sha256_bytes(content) != digest:
            raise CorruptSnapshot(number, f"{digest} is not the record's digest")
        yield b'{"cluster":"%s","contributor":%s,"record":%s,"record_digest":"%s","split":"%s"}' % (
            spool.digest(root).encode(),
            contributors[numbers[index]],
            content,
            digest.encode(),
            SPLITS[split_of[root]].encode(),
        )


def _split_counts(of_records: npt.NDArray[np.int8], of_clusters: npt.NDArray[np.int8]) -> tuple[Count, ...]:
    records, clusters = (np.bincount(each, minlength=len(SPLITS)) for each in (of_records, of_clusters))
    return tuple(Count(split, int(records[at]), int(clusters[at])) for at, split in enumerate(SPLITS))


def _contributor_counts(spool: Spool, names: npt.NDArray[np.int64]) -> tuple[Count, ...]:
    numbers = spool.contributor_numbers()
    records, originals = (
        np.bincount(each, minlength=len(spool.contributors)) for each in (numbers, numbers[names])
    )
    counts = (Count(name, int(records[at]), int(originals[at])) for at, name in enumerate(spool.contributors))
    return tuple(sorted(counts, key=lambda count: count.name))
