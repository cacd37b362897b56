"""Groups the rows of an index into near-duplicate clusters, and says which contributor is credited for each.

A cluster counts once and its earliest member's contributor is credited, so that a copy earns nothing: it is only part of
a mean. A cluster with a member that was trained on is a trained cluster. Control records, accepted but never trained on,
form control clusters: the null distribution for trained ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]

CONTROL = "control"
TRAINED = "train"


@dataclass(frozen=True, kw_only=True)
class IndexRow:
    """One record of an index."""

    record_digest: str
    cluster: str
    """Digest of the cluster's earliest member."""
    contributor: str
    """The record's contributor: `datanets/{datanet}/contributors/{contributor}`."""
    credited: str
    """The contributor of the cluster's earliest member; "" if that record is no longer in the snapshot."""
    split: str
    """TRAINED or CONTROL."""
    times_seen: int
    """How often training saw it; 0 for a control."""

    @property
    def datanet(self) -> str:
        return "/".join(self.contributor.split("/")[:2])


@dataclass(frozen=True, kw_only=True)
class ClusterTable:
    """Rows grouped into clusters. Contributors are all that are credited or submitted trained records, by name."""

    contributors: tuple[str, ...]
    trained_names: tuple[str, ...]
    """Clusters with a trained member."""
    owners: npt.NDArray[np.int64]
    """[trained clusters]: index into contributors; -1 if no contributor can be credited."""
    trained_rows: npt.NDArray[np.int64]
    """[trained rows]: their positions in the index."""
    trained_cluster_of_row: npt.NDArray[np.int64]
    """[trained rows]: index into trained_names."""
    row_contributors: npt.NDArray[np.int64]
    """[trained rows]: index into contributors, of the one that submitted the row, even if it is a copy."""
    control_rows: npt.NDArray[np.int64]
    control_cluster_of_row: npt.NDArray[np.int64]
    control_count: int
    """Control clusters."""

    @classmethod
    def of(cls, rows: Sequence[IndexRow]) -> ClusterTable:
        """Returns the table of an index's rows. The same text in two Datanets belongs to two clusters."""
        trained = [index for index, row in enumerate(rows) if row.split == TRAINED]
        control = [index for index, row in enumerate(rows) if row.split == CONTROL]
        names = sorted(
            {name for index in trained for name in (rows[index].contributor, rows[index].credited) if name}
        )
        contributors = {name: index for index, name in enumerate(names)}
        clusters = _numbered([_key(rows[index]) for index in trained])
        controls = _numbered([_key(rows[index]) for index in control])
        owners = np.full(len(clusters), -1, dtype=np.int64)
        for index in trained:
            if rows[index].credited:
                owners[clusters[_key(rows[index])]] = contributors[rows[index].credited]
        return cls(
            contributors=tuple(names),
            trained_names=tuple(name for _, name in clusters),
            owners=owners,
            trained_rows=_array(trained),
            trained_cluster_of_row=_array([clusters[_key(rows[index])] for index in trained]),
            row_contributors=_array([contributors[rows[index].contributor] for index in trained]),
            control_rows=_array(control),
            control_cluster_of_row=_array([controls[_key(rows[index])] for index in control]),
            control_count=len(controls),
        )

    def trained_means(self, scores: Scores) -> Scores:
        """Returns each trained cluster's mean score over its trained members; scores [rows] -> [trained clusters]."""
        return _means(scores[self.trained_rows], self.trained_cluster_of_row, len(self.trained_names))

    def control_means(self, scores: Scores) -> Scores:
        """Returns each control cluster's mean score; scores [rows] -> [control clusters]."""
        return _means(scores[self.control_rows], self.control_cluster_of_row, self.control_count)

    def cluster_counts(self) -> npt.NDArray[np.int64]:
        """Returns the number of trained clusters credited to each contributor."""
        return np.bincount(self.owners[self.owners >= 0], minlength=len(self.contributors)).astype(np.int64)

    def record_counts(self) -> npt.NDArray[np.int64]:
        """Returns the number of trained records that each contributor submitted."""
        return np.bincount(self.row_contributors, minlength=len(self.contributors)).astype(np.int64)


def _key(row: IndexRow) -> tuple[str, str]:
    return row.datanet, row.cluster


def _numbered(keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    return {key: index for index, key in enumerate(sorted(set(keys)))}


def _array(values: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def _means(scores: Scores, clusters: npt.NDArray[np.int64], count: int) -> Scores:
    totals = np.bincount(clusters, weights=scores, minlength=count)
    sizes = np.bincount(clusters, minlength=count)
    return np.asarray(totals / np.maximum(sizes, 1), dtype=np.float64)
