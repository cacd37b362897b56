"""Proposes pairs of similar texts: those whose signatures agree in all columns of a band.

Of `COLUMNS` columns, about a share s agrees for two texts of similarity s. Each band is a set of columns; a pair is proposed by a
band with the probability s^rows. Bands overlap, so their number is not bounded by the columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datanet.near_duplicates.ahead import ahead
from datanet.near_duplicates.sketches import COLUMNS, column_name

Indices = npt.NDArray[np.int64]

MARGIN = 0.08
"""Two standard deviations of the share of 128 columns that agree, at the default threshold."""
MISSES = 1e-3
"""Largest probability that no band proposes a pair whose columns agree in `threshold - MARGIN`: two standard deviations
below what a pair at the threshold is expected to have."""
_MOST_BANDS = 160
_MOST_ROWS = 16
_FEW = 20_000

SMALL_BUCKET = 64
"""Texts in a bucket of up to this size are all compared with each other."""
WINDOW = 16
"""In a larger bucket, each text is compared with this many that arrived after it: work stays linear, whatever is contributed."""


@dataclass(frozen=True)
class Shape:
    """How many bands of how many columns."""

    bands: int
    rows: int

    @classmethod
    def of(cls, threshold: float) -> Shape:
        """Returns the shape with the fewest false pairs that finds nearly all pairs at the threshold."""
        share = max(0.05, threshold - MARGIN)
        for rows in range(_MOST_ROWS, 1, -1):
            bands = math.ceil(math.log(MISSES) / math.log1p(-(share**rows)))
            if bands <= _MOST_BANDS:
                return cls(bands, rows)
        return cls(_MOST_BANDS, 1)


def pairs(folder: Path, chosen: Indices, threshold: float) -> Iterator[tuple[int, Indices, Indices]]:
    """Yields the band and proposed pairs (earlier, later) of the chosen texts, at most one lag of one band at a time."""
    if len(chosen) < 2:
        return
    shape = Shape.of(threshold)
    bits = np.uint64(max(1, (len(chosen) - 1).bit_length()))
    places = np.arange(len(chosen), dtype=np.uint64)
    signatures = _Signatures(folder, chosen)

    def buckets(band: int) -> tuple[npt.NDArray[np.uint64], Indices]:
        # The place in the low bits: one sort of numbers groups the buckets, each in the order of arrival.
        keys = (signatures.keys(_columns(band, shape.rows)) << bits) | places
        keys.sort()
        return keys >> bits, chosen[(keys & np.uint64((1 << int(bits)) - 1)).astype(np.int64)]

    for band, (keys, found) in enumerate(ahead(buckets, range(shape.bands))):
        for left, right in _of_buckets(keys, found):
            yield band, left, right


def _of_buckets(keys: npt.NDArray[np.uint64], found: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Yields the pairs that stand `lag` places apart in one bucket, for each lag."""
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    sizes = np.diff(np.append(starts, len(keys)))
    places = np.flatnonzero(np.repeat(sizes > 1, sizes))
    small = np.repeat(sizes <= SMALL_BUCKET, sizes)
    for lag in range(1, SMALL_BUCKET):
        places = places[places < len(keys) - lag]
        places = places[keys[places] == keys[places + lag]]
        if lag > WINDOW:
            places = places[small[places]]
        if not len(places):
            return
        yield found[places], found[places + lag]


class _Signatures:
    """The columns of the signatures of the chosen texts. Those of few texts are kept in memory."""

    def __init__(self, folder: Path, chosen: Indices) -> None:
        self._folder = folder
        self._chosen = chosen
        self._kept: dict[int, npt.NDArray[np.uint16]] = {}

    def keys(self, columns: Sequence[int]) -> npt.NDArray[np.uint64]:
        """Returns a number for each text that those with the same values in these columns share."""
        key = np.zeros(len(self._chosen), np.uint64)
        with np.errstate(over="ignore"):
            for column in columns:
                key = (key ^ self._column(column)) * np.uint64(0x9E3779B97F4A7C15)
                key ^= key >> np.uint64(32)
        return key

    def _column(self, column: int) -> npt.NDArray[np.uint16]:
        if column in self._kept:
            return self._kept[column]
        values = np.fromfile(self._folder / column_name(column), np.uint16)[self._chosen]
        if len(values) <= _FEW:
            self._kept[column] = values
        return values


@cache
def _columns(band: int, rows: int) -> Sequence[int]:
    """Returns the columns of a band: drawn by hash, so that they never change."""
    drawn = sorted(range(COLUMNS), key=lambda column: sha256(b"band %d column %d" % (band, column)).digest())
    return drawn[:rows]
