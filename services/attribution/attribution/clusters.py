"""Which rows of an index are one near-duplicate cluster, and who is credited for it.

A cluster counts once and its earliest member's contributor is credited, so that a copy earns nothing: it only
joins a mean. A cluster of which some member was trained on is a trained cluster; control records, accepted
but never trained on, form control clusters, which are the null that trained ones are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]

CONTROL = "control"
TRAINED = "train"


@dataclass(frozen=True)
class IndexRow:
    """One record of an index."""

    record_digest: str
    cluster: str
    """Digest of the cluster's earliest member."""
    contributor: str
    """Who contributed this record: `datanets/{datanet}/contributors/{contributor}`."""
    credited: str
    """Who contributed the cluster's earliest member; "" when that record is not in the snapshot any more."""
    split: str
    """TRAINED or CONTROL."""
    times_seen: int
    """How often training saw it; 0 for a control."""

    @property
    def datanet(self) -> str:
        return "/".join(self.contributor.split("/")[:2])


@dataclass(frozen=True)
class ClusterTable:
    """Rows gathered into clusters. Contributors are those credited with or present in training, in name
    order."""

    contributors: tuple[str, ...]
    trained_names: tuple[str, ...]
    """Clusters with a trained member."""
    owners: npt.NDArray[np.int64]
    """[trained clusters]: index into contributors, -1 where nobody can be credited."""
    trained_rows: npt.NDArray[np.int64]
    """[trained rows]: their places in the index."""
    trained_cluster_of_row: npt.NDArray[np.int64]
    """[trained rows]: index into trained_names."""
    row_contributors: npt.NDArray[np.int64]
    """[trained rows]: index into contributors of the one who submitted the row, copier or not."""
    control_rows: npt.NDArray[np.int64]
    control_cluster_of_row: npt.NDArray[np.int64]
    control_count: int
    """Control clusters."""

    @classmethod
    def of(cls, rows: Sequence[IndexRow]) -> ClusterTable:
        """From an index's rows. A record of another Datanet with the same text is another cluster there."""
        trained = [index for index, row in enumerate(rows) if row.split == TRAINED]
        control = [index for index, row in enumerate(rows) if row.split == CONTROL]
        names = sorted(
            {name for index in trained for name in (rows[index].contributor, rows[index].credited) if name}
        )
        contributors = {name: place for place, name in enumerate(names)}
        clusters = _numbered([_key(rows[index]) for index in trained])
        controls = _numbered([_key(rows[index]) for index in control])
        owners = np.full(len(clusters), -1, dtype=np.int64)
        for index in trained:
            if rows[index].credited:
                owners[clusters[_key(rows[index])]] = contributors[rows[index].credited]
        return cls(
            tuple(names),
            tuple(name for _, name in clusters),
            owners,
            _array(trained),
            _array([clusters[_key(rows[index])] for index in trained]),
            _array([contributors[rows[index].contributor] for index in trained]),
            _array(control),
            _array([controls[_key(rows[index])] for index in control]),
            len(controls),
        )

    def trained_means(self, scores: Scores) -> Scores:
        """Mean score of each trained cluster over its trained members; scores [rows] -> [trained
        clusters]."""
        return _means(scores[self.trained_rows], self.trained_cluster_of_row, len(self.trained_names))

    def control_means(self, scores: Scores) -> Scores:
        """Mean score of each control cluster; scores [rows] -> [control clusters]."""
        return _means(scores[self.control_rows], self.control_cluster_of_row, self.control_count)

    def cluster_counts(self) -> npt.NDArray[np.int64]:
        """Trained clusters credited to each contributor."""
        return np.bincount(self.owners[self.owners >= 0], minlength=len(self.contributors)).astype(np.int64)

    def record_counts(self) -> npt.NDArray[np.int64]:
        """Trained records submitted by each contributor."""
        return np.bincount(self.row_contributors, minlength=len(self.contributors)).astype(np.int64)


def _key(row: IndexRow) -> tuple[str, str]:
    return row.datanet, row.cluster


def _numbered(keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    return {key: place for place, key in enumerate(sorted(set(keys)))}


def _array(values: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def _means(scores: Scores, clusters: npt.NDArray[np.int64], count: int) -> Scores:
    totals = np.bincount(clusters, weights=scores, minlength=count)
    sizes = np.bincount(clusters, minlength=count)
    return np.asarray(totals / np.maximum(sizes, 1), dtype=np.float64)
