"""Which records of several snapshots may be trained on, asked, or neither: the splits of all of them together.

Snapshots of one Datanet share records, and each divides them by its own rule: a record held out in one may stand in
the train split of another. What one snapshot withholds is withheld from the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from identity.snapshot import SnapshotLine

TRAIN, HELD_OUT, CONTROL = "train", "held_out", "control"
"""A Datanet's splits. Records held out are asked, control records are neither trained on nor asked."""


class JointSplits:
    """The splits of all snapshots of a run.

    Records belong together when a snapshot puts them in one near-duplicate cluster, or when both belong together with a
    third: a chain through several snapshots counts. Near-duplicates that no snapshot has side by side are not known.
    """

    def __init__(self, snapshots: Iterable[Sequence[SnapshotLine]]) -> None:
        self._parents: dict[str, str] = {}
        splits: dict[str, set[str]] = {}
        names: set[str] = set()
        for lines in snapshots:
            for line in lines:
                self._join(line.record_digest, line.cluster)
                splits.setdefault(line.record_digest, set()).add(line.split)
                names.add(line.cluster)
        self._splits: dict[str, set[str]] = {}
        for digest, found in splits.items():
            self._splits.setdefault(self._root(digest), set()).update(found)
        self._names: dict[str, str] = {}
        for name in sorted(names):
            self._names.setdefault(self._root(name), name)

    def trainable(self, record_digest: str) -> bool:
        """Whether every snapshot has the record, and all that belong together with it, in its train split."""
        return self._splits[self._root(record_digest)] == {TRAIN}

    def askable(self, record_digest: str) -> bool:
        """Whether the record may stand in the domain suite: it is withheld from training, and no control."""
        splits = self._splits[self._root(record_digest)]
        return HELD_OUT in splits and CONTROL not in splits

    def cluster(self, record_digest: str) -> str:
        """Returns one name for all records that belong together: the first, in order, of their clusters' names."""
        return self._names[self._root(record_digest)]

    def _root(self, name: str) -> str:
        while (parent := self._parents.get(name, name)) != name:
            self._parents[name] = self._parents[parent]  # halves the path for the next look-up
            name = parent
        return name

    def _join(self, record_digest: str, cluster: str) -> None:
        for name in (record_digest, cluster):
            self._parents.setdefault(name, name)
        self._parents[self._root(record_digest)] = self._root(cluster)
