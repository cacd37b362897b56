"""Verifies proposed pairs exactly, and joins them to clusters."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datanet.near_duplicates import bands
from datanet.near_duplicates.bands import Indices
from datanet.near_duplicates.sketches import PARITY_BITS

_AT_ONCE = 100_000


def find_clusters(folder: Path, threshold: float, progress: Callable[[int, int], None]) -> Indices:
    """Returns, for each text whose sketches are in the folder, the index of the earliest text of its cluster.

    A text without a near-duplicate is a cluster of its own, and so is each text without words. `progress` is called often
    with the bands done and all bands, and may raise to end the search.
    """
    counts = np.fromfile(folder / "counts", np.uint32).astype(np.int64)
    roots = np.arange(len(counts))
    _join_same(folder, counts, roots)
    chosen = np.flatnonzero((roots == np.arange(len(counts))) & (counts > 0))
    _join_letters(folder, counts, roots)
    with _Verifier(folder, counts, threshold) as verifier:
        for done, left, right in bands.pairs(folder, chosen, threshold):
            for start in range(0, len(left), _AT_ONCE):
                progress(done, bands.Shape.of(threshold).bands)
                part = slice(start, start + _AT_ONCE)
                _join(roots, left[part], right[part], verifier)
    return _roots(roots, roots)


def _join_same(folder: Path, counts: Indices, roots: Indices) -> None:
    """Joins texts with the same shingles: however often a text is copied, one of its copies is compared with others."""
    same = np.fromfile(folder / "same", np.uint64).reshape(-1, 2)
    order = np.lexsort((np.arange(len(counts)), counts, same[:, 1], same[:, 0]))
    ordered, sizes = same[order], counts[order]
    new = np.ones(len(order), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1) | (sizes[1:] != sizes[:-1]) | (sizes[1:] == 0)
    roots[order] = order[np.flatnonzero(new)[np.cumsum(new) - 1]]


def _join_letters(folder: Path, counts: Indices, roots: Indices) -> None:
    """Joins texts that differ only in what separates their letters: to a reader they are one text, and they may share no word."""
    letters = np.fromfile(folder / "letters", np.uint64).reshape(-1, 2)
    filled = np.flatnonzero(counts > 0)
    order = filled[np.lexsort((filled, letters[filled, 1], letters[filled, 0]))]
    follows = np.flatnonzero((letters[order[1:]] == letters[order[:-1]]).all(axis=1))
    left, right = order[follows], order[follows + 1]
    apart = _roots(roots, left) != _roots(roots, right)
    for one, other in zip(left[apart], right[apart], strict=True):
        one_root, other_root = _root(roots, int(one)), _root(roots, int(other))
        roots[max(one_root, other_root)] = min(one_root, other_root)


def _join(roots: Indices, left: Indices, right: Indices, verifier: _Verifier) -> None:
    apart = _roots(roots, left) != _roots(roots, right)
    for one, other in zip(*verifier.plausible(left[apart], right[apart]), strict=True):
        one_root, other_root = _root(roots, int(one)), _root(roots, int(other))
        if one_root != other_root and verifier.similar(int(one), int(other)):
            roots[max(one_root, other_root)] = min(one_root, other_root)


def _root(roots: Indices, index: int) -> int:
    """Returns the earliest text of a cluster: the earlier root becomes the parent of the later one."""
    while (parent := int(roots[index])) != index:
        roots[index] = roots[parent]
        index = parent
    return index


def _roots(roots: Indices, indices: Indices) -> Indices:
    while not np.array_equal(above := roots[indices], indices):
        indices = above
    return indices


class _Verifier:
    """Decides whether two texts reach the threshold."""

    def __init__(self, folder: Path, counts: Indices, threshold: float) -> None:
        self._counts = counts
        self._threshold = threshold
        self._ends = np.cumsum(counts)
        self._parity: npt.NDArray[np.uint64] = np.fromfile(folder / "parity", np.uint64)
        self._parity = self._parity.reshape(-1, PARITY_BITS // 64)
        self._shingles = os.open(folder / "shingles", os.O_RDONLY)

    def __enter__(self) -> _Verifier:
        return self

    def __exit__(self, *args: object) -> None:
        os.close(self._shingles)

    def plausible(self, left: Indices, right: Indices) -> tuple[Indices, Indices]:
        """Returns the pairs that may reach the threshold; none of the others does.

        Of a + b shingles, d are in one text only: the similarity is (a + b - d) / (a + b + d), and d is at least the number of
        bits in which the parities differ, and at least |a - b|.
        """
        total = self._counts[left] + self._counts[right]
        most = total * ((1 - self._threshold) / (1 + self._threshold)) + 1e-6
        kept = np.flatnonzero(np.abs(self._counts[left] - self._counts[right]) <= most)
        left, right, most = left[kept], right[kept], most[kept]
        differing = np.bitwise_count(self._parity[left] ^ self._parity[right]).sum(axis=1, dtype=np.int64)
        kept = np.flatnonzero(differing <= most)
        return left[kept], right[kept]

    def similar(self, one: int, other: int) -> bool:
        """Returns whether the Jaccard similarity of two texts' shingles reaches the threshold."""
        shared = len(np.intersect1d(self._read(one), self._read(other), assume_unique=True))
        union = int(self._counts[one] + self._counts[other]) - shared
        return union > 0 and shared / union >= self._threshold

    def _read(self, index: int) -> npt.NDArray[np.uint64]:
        count = int(self._counts[index])
        return np.frombuffer(
            os.pread(self._shingles, 8 * count, 8 * (int(self._ends[index]) - count)), np.uint64
        )
