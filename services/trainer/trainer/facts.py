"""What can be known of snapshots before training on them: counts, lengths, concentration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from identity.snapshot import CorruptSnapshot, SnapshotLine, read_lines
from modelkit.prompt import PromptTemplate, TemplateError
from modelkit.splits import HELD_OUT, TRAIN, JointSplits
from servicekit.objects import ObjectStore
from trainer.contract.files import SnapshotInput
from trainer.contract.spec import ALL_LINEAR

CHARACTERS_A_TOKEN = 4.0
"""Rough for English and small vocabularies; good enough for warnings and estimates of time."""


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Facts of the records that a run would train on, over all its snapshots."""

    train_records: int
    train_clusters: int
    """Near-duplicate clusters among them: what there really is to learn."""
    held_out_records: int
    """Records that an evaluation may ask, each once."""
    mean_characters: float
    """Of prompt and completion together."""
    long_characters: float
    """95th percentile of the same."""
    largest_share: float
    """Part of the train records that one contributor gave."""


class UnusableSnapshot(ValueError):
    """A snapshot whose records cannot be read, or do not fit its template."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a run would meet beside its data."""

    context: int | None = None
    """The most tokens that the base reads at once; None when its configuration does not say."""
    linear_modules: Sequence[str] = ALL_LINEAR
    """Of the base: what adapters can be put on."""
    cores: int | None = None
    """Processor cores of Ray's machines together; None when Ray did not say."""


UNKNOWN = Surroundings()
"""Nothing is known of them, so nothing is said."""


class FactsReader:
    """Reads facts out of records objects; the newest few are remembered, because snapshots never change."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._read = lru_cache(maxsize=32)(self._facts)

    def read(self, snapshots: Sequence[SnapshotInput]) -> DataFacts:
        """Returns the facts of a run over these snapshots: of the records that it trains on and asks, see `modelkit.splits`.

        Raises NotFound when the object store lacks the records, UnusableSnapshot.
        """
        return self._read(tuple(snapshots))

    def _facts(self, snapshots: tuple[SnapshotInput, ...]) -> DataFacts:
        lines = [self._lines(snapshot) for snapshot in snapshots]
        splits = JointSplits(lines)
        contributors: Counter[str] = Counter()
        clusters, lengths, asked = set(), [], set()
        for snapshot, records in zip(snapshots, lines, strict=True):
            for line in records:
                if line.split == HELD_OUT and splits.askable(line.record_digest):
                    asked.add(line.record_digest)
                if line.split != TRAIN or not splits.trainable(line.record_digest):
                    continue
                contributors[line.contributor] += 1
                clusters.add(splits.cluster(line.record_digest))
                lengths.append(_characters(snapshot, line))
        lengths.sort()
        count = len(lengths)
        return DataFacts(
            train_records=count,
            train_clusters=len(clusters),
            held_out_records=len(asked),
            mean_characters=sum(lengths) / count if count else 0.0,
            long_characters=float(lengths[int(0.95 * (count - 1))]) if count else 0.0,
            largest_share=max(contributors.values()) / count if count else 0.0,
        )

    def _lines(self, snapshot: SnapshotInput) -> list[SnapshotLine]:
        try:
            return list(read_lines(self._objects.get_bytes(snapshot.records_digest)))
        except CorruptSnapshot as error:
            raise UnusableSnapshot(snapshot.name, str(error)) from None


def _characters(snapshot: SnapshotInput, line: SnapshotLine) -> int:
    try:
        template = PromptTemplate(snapshot.prompt, snapshot.completion)
        return sum(map(len, template.render(line.record)))
    except TemplateError as error:
        raise UnusableSnapshot(snapshot.name, str(error)) from None
