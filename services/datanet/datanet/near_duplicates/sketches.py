"""What is kept of each text to find and to verify similar ones, in files of fixed-size entries.

shingles    all shingles, text by text, ascending: 8 bytes each
counts      how many shingles a text has: 4 bytes
parity      512 bits: each shingle flips one of them
same        16 bytes that texts with the same shingles share
letters     16 bytes that texts of the same letters and digits share
minima      128 columns, one after the other, of 2 bytes a text: the MinHash signatures
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datanet.near_duplicates.ahead import ahead
from datanet.near_duplicates.shingles import MAX_TEXTS, Numbers, Shingler, Words, shingles

COLUMNS = 128
PARITY_BITS = 512
_CHUNK_CHARACTERS = 2 << 20


def write_sketches(texts: Iterable[str], folder: Path) -> int:
    """Writes the sketches of the texts in their order into a folder, and returns how many they are."""
    shingler, total = Shingler(), 0
    with ExitStack() as stack:
        files = {
            name: stack.enter_context((folder / name).open("wb"))
            for name in ("shingles", "counts", "parity", "same", "letters", *map(column_name, range(COLUMNS)))
        }
        for sketches in ahead(_sketches, map(shingler.words, _chunks(texts))):
            for name, values in sketches.items():
                values.tofile(files[name])
            total += len(sketches["counts"])
    return total


def _sketches(words: Words) -> dict[str, npt.NDArray[np.generic]]:
    """Returns what is added to each file."""
    counts, values = shingles(words)
    return {
        "shingles": values,
        "counts": counts.astype(np.uint32),
        "parity": _parities(counts, values),
        "same": _sums(counts, values),
        "letters": words.letters,
        **{column_name(column): minima for column, minima in enumerate(_minima(counts, values))},
    }


def column_name(column: int) -> str:
    """Returns the file of a column of the signatures."""
    return f"minima-{column:03}"


def _chunks(texts: Iterable[str]) -> Iterator[Sequence[str]]:
    chunk: list[str] = []
    characters = 0
    for text in texts:
        chunk.append(text)
        characters += len(text)
        if len(chunk) == MAX_TEXTS or characters > _CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _parities(counts: npt.NDArray[np.int64], values: Numbers) -> Numbers:
    """Returns [texts, 8] words. Texts whose parities differ in d bits differ in at least d shingles."""
    cells = np.repeat(np.arange(len(counts), dtype=np.int64) * PARITY_BITS, counts)
    cells += (values % np.uint64(PARITY_BITS)).astype(np.int64)
    bits = np.bincount(cells, minlength=len(counts) * PARITY_BITS).astype(np.uint8) & 1
    return np.packbits(bits).view(np.uint64).reshape(len(counts), PARITY_BITS // 64)


def _sums(counts: npt.NDArray[np.int64], values: Numbers) -> Numbers:
    """Returns [texts, 2]: two sums over hashes of the shingles."""
    with np.errstate(over="ignore"):
        first = values * np.uint64(0x9E3779B97F4A7C15)
        second = (values ^ (first >> np.uint64(29))) * np.uint64(0xD6E8FEB86659FD93)
        sums = [
            np.concatenate(([np.uint64(0)], np.cumsum(each, dtype=np.uint64))) for each in (first, second)
        ]
        ends = np.concatenate(([0], np.cumsum(counts)))
        return np.stack([each[ends[1:]] - each[ends[:-1]] for each in sums], axis=1)


def _minima(counts: npt.NDArray[np.int64], values: Numbers) -> Iterator[npt.NDArray[np.uint16]]:
    """Yields the columns of the signatures: the low 16 bits of the smallest hash of each text; 0 for one without shingles."""
    filled = counts > 0
    starts = (np.cumsum(counts) - counts)[filled]
    hashes = (values >> np.uint64(18)).astype(np.uint32)
    for factor, summand in _permutations():
        column = np.zeros(len(counts), np.uint16)
        if len(starts):
            column[filled] = np.minimum.reduceat(hashes * factor + summand, starts).astype(np.uint16)
        yield column


@cache
def _permutations() -> tuple[tuple[np.uint32, np.uint32], ...]:
    """Odd factors and summands: h * factor + summand modulo 2^32 permutes the numbers of 32 bits."""
    drawn = (sha256(b"openledger near-duplicates %d" % column).digest() for column in range(COLUMNS))
    return tuple(
        (np.uint32(int.from_bytes(each[:4], "big") | 1), np.uint32(int.from_bytes(each[4:8], "big")))
        for each in drawn
    )
