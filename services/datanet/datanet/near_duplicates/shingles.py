"""The shingles of texts as numbers, for many texts at once."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from identity.folding import fold

Numbers = npt.NDArray[np.uint64]

SHINGLE_BITS = 50
"""Of a shingle's hash. Two different shingles of a pair of records of 100 words collide with a probability of 1 in 10^10."""
MAX_TEXTS = 1 << (64 - SHINGLE_BITS)
"""Texts of one call: text and shingle share a number, so that one sort of numbers orders both."""

_WORD = re.compile(r"[^\W_]+")
_MOST_WORDS = 200_000
"""Words whose hash is kept: about 30 MB."""
_MIX_1, _MIX_2, _PAIR = (
    np.uint64(each) for each in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0x9E3779B97F4A7C15)
)


class _Words(dict[str, int]):
    """The hash of each word, computed when it is first met."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _MOST_WORDS:
            self.clear()
        found = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")
        self[word] = found
        return found


@dataclass(frozen=True)
class Words:
    """The hashes of the words of some texts, one after the other, and where each text ends."""

    hashes: Numbers
    ends: npt.NDArray[np.int64]
    letters: Numbers
    """[texts, 2]: 16 bytes that texts of the same letters and digits share, whatever separates them."""


class Shingler:
    """Splits texts into folded words, without punctuation."""

    def __init__(self) -> None:
        self._hashes = _Words()

    def words(self, texts: Sequence[str]) -> Words:
        """Returns the words of at most MAX_TEXTS texts."""
        hashes = array("Q")
        ends = np.empty(len(texts), np.int64)
        letters = bytearray()
        for index, text in enumerate(texts):
            words = _WORD.findall(fold(text))
            hashes.extend(map(self._hashes.__getitem__, words))
            ends[index] = len(hashes)
            letters += blake2b("".join(words).encode(), digest_size=16).digest()
        return Words(
            np.frombuffer(hashes, np.uint64) if hashes else np.empty(0, np.uint64),
            ends,
            np.frombuffer(bytes(letters), np.uint64).reshape(-1, 2),
        )


def shingles(words: Words) -> tuple[npt.NDArray[np.int64], Numbers]:
    """Returns how many shingles each text has, and the shingles of all: text by text, ascending, each once.

    Shingles are runs of one and of two words. Pairs reflect the order. Single words prevent that one changed word of a short
    sentence costs a third of the similarity, as it does with longer runs alone.
    """
    hashes, count = words.hashes, len(words.ends)
    text_of = np.repeat(np.arange(count, dtype=np.uint64), np.diff(words.ends, prepend=0))
    followed = text_of[1:] == text_of[:-1]
    with np.errstate(over="ignore"):
        pairs = _mixed(hashes[:-1] * _PAIR + _mixed(hashes[1:]))[followed]
    keys = np.concatenate((_mixed(hashes), pairs)) >> np.uint64(64 - SHINGLE_BITS)
    keys |= np.concatenate((text_of, text_of[1:][followed])) << np.uint64(SHINGLE_BITS)
    keys.sort()
    first = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    keys = keys[first]
    counts = np.bincount((keys >> np.uint64(SHINGLE_BITS)).astype(np.int64), minlength=count)
    return counts, keys & np.uint64((1 << SHINGLE_BITS) - 1)


def _mixed(values: Numbers) -> Numbers:
    """Returns well-distributed numbers (the finalizer of SplitMix64; Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * _MIX_1
        values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))
