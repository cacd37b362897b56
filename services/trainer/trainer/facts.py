"""What can be known of a snapshot before training on it: counts, lengths, concentration."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from identity.snapshot import read_lines
from modelkit.prompt import PromptTemplate
from servicekit.objects import ObjectStore

CHARACTERS_A_TOKEN = 4.0
"""Rough for English and small vocabularies; good enough for warnings and estimates of time."""


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Facts of the records that a run would train on, over all its snapshots."""

    train_records: int
    train_clusters: int
    """Near-duplicate clusters in the train split: what there really is to learn."""
    held_out_records: int
    mean_characters: float
    """Of prompt and completion together."""
    long_characters: float
    """95th percentile of the same."""
    largest_share: float
    """Part of the train records that one contributor gave."""


def combine(parts: list[DataFacts]) -> DataFacts:
    """Facts of several snapshots together; lengths and shares weighted by records."""
    records = sum(part.train_records for part in parts)
    weights = [part.train_records / records if records else 0.0 for part in parts]
    pairs = list(zip(parts, weights, strict=True))
    return DataFacts(
        train_records=records,
        train_clusters=sum(part.train_clusters for part in parts),
        held_out_records=sum(part.held_out_records for part in parts),
        mean_characters=sum(part.mean_characters * weight for part, weight in pairs),
        long_characters=max((part.long_characters for part in parts), default=0.0),
        largest_share=max((part.largest_share * weight for part, weight in pairs), default=0.0),
    )


class FactsReader:
    """Reads facts out of records objects; the newest few are remembered, because snapshots never change."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._read = lru_cache(maxsize=32)(self._facts)

    def read(self, records_digest: str, template: PromptTemplate) -> DataFacts:
        """Raises NotFound when the object store lacks the records, CorruptSnapshot, TemplateError."""
        return self._read(records_digest, template)

    def _facts(self, records_digest: str, template: PromptTemplate) -> DataFacts:
        contributors: Counter[str] = Counter()
        clusters, lengths, held_out = set(), [], 0
        for line in read_lines(self._objects.get_bytes(records_digest)):
            held_out += line.split == "held_out"
            if line.split != "train":
                continue
            contributors[line.contributor] += 1
            clusters.add(line.cluster)
            lengths.append(sum(map(len, template.render(line.record))))
        lengths.sort()
        count = len(lengths)
        return DataFacts(
            train_records=count,
            train_clusters=len(clusters),
            held_out_records=held_out,
            mean_characters=sum(lengths) / count if count else 0.0,
            long_characters=float(lengths[int(0.95 * (count - 1))]) if count else 0.0,
            largest_share=max(contributors.values()) / count if count else 0.0,
        )
