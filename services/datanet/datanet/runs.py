"""Finds runs of symbols that a text shares with many others, in time in proportion to the text.

A run is found by a polynomial hash modulo 2^64 of its symbols: with sums over the beginnings of a text, the hashes of all its
runs of one width take a few operations on whole arrays (Karp and Rabin 1987). Symbols are 64-bit numbers that are well mixed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SLOTS_AN_ENTRY = 8


def mixed(values: Numbers) -> Numbers:
    """Returns well-distributed numbers (the finalizer of SplitMix64; Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * _MIX_1
        values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))


class Hashes:
    """The hashes of any runs of one sequence of symbols."""

    def __init__(self, symbols: Numbers) -> None:
        self.length = len(symbols)
        with np.errstate(over="ignore"):
            powers = _powers(_BASE, self.length)
            self._sums = np.zeros(self.length + 1, np.uint64)
            np.cumsum(symbols * powers, dtype=np.uint64, out=self._sums[1:])
        self._inverses = _powers(_INVERSE, self.length)

    def of_width(self, width: int) -> Numbers:
        """Returns the hash of the run of this width at each place."""
        count = max(0, self.length - width + 1)
        with np.errstate(over="ignore"):
            found = (self._sums[width : width + count] - self._sums[:count]) * self._inverses[:count]
        return mixed(found)

    def between(self, starts: Places, ends: Places) -> Numbers:
        """Returns the hash of each run from a start to before an end. The starts must be places of symbols."""
        with np.errstate(over="ignore"):
            found = (self._sums[ends] - self._sums[starts]) * self._inverses[starts]
        return mixed(found)


@dataclass(frozen=True)
class Hit:
    """A run of a text that is also in one of the others."""

    start: int
    width: int
    source: int


@dataclass
class RunIndex:
    """Runs of `width` symbols, of every `step`-th place of each text; shorter texts of at least `shortest` symbols whole."""

    width: int
    step: int
    shortest: int
    _runs: list[tuple[Numbers, int]] = field(default_factory=list)
    _whole: list[tuple[int, int, int, int]] = field(default_factory=list)

    def add(self, text: Hashes, source: int) -> None:
        """Adds the runs of a text. A text shorter than `shortest` has none."""
        if text.length >= self.width:
            self._runs.append((text.of_width(self.width)[:: self.step], source))
        elif text.length >= self.shortest:
            begin = text.of_width(self.shortest)[0]
            self._whole.append((int(begin), text.length, int(text.of_width(text.length)[0]), source))

    def built(self) -> FoundRuns:
        """Returns what is searched; nothing can be added any more."""
        keys = np.concatenate([keys for keys, _ in self._runs] or [np.empty(0, np.uint64)])
        sources = np.repeat(
            np.array([source for _, source in self._runs], np.int32), [len(keys) for keys, _ in self._runs]
        )
        whole = np.array([(begin, sum_) for begin, _, sum_, _ in self._whole], np.uint64).reshape(-1, 2)
        lengths = np.array([(width, source) for _, width, _, source in self._whole], np.int64).reshape(-1, 2)
        order = np.argsort(whole[:, 0], kind="stable")
        return FoundRuns(
            width=self.width,
            shortest=self.shortest,
            runs=_Keys.of(keys, sources),
            whole=whole[order],
            lengths=lengths[order],
            begins=_Keys.of(whole[:, 0]),
        )


@dataclass(frozen=True, kw_only=True)
class FoundRuns:
    """Searches a text for runs of others."""

    width: int
    shortest: int
    runs: _Keys
    whole: Numbers
    """[texts, 2]: the hash of the first `shortest` symbols, ascending, and of all."""
    lengths: Places
    """[texts, 2]: the number of symbols, and the source."""
    begins: _Keys

    def first(self, text: Hashes) -> Hit | None:
        """Returns the first run of the text that another text has, or None."""
        hits = []
        if text.length >= self.width and self.runs.count:
            found, places = self.runs.find(text.of_width(self.width))
            if len(places):
                hits.append(Hit(int(places[0]), self.width, int(self.runs.sources[found[0]])))
        if text.length >= self.shortest and len(self.whole):
            hits += self._first_whole(text)
        return min(hits, key=lambda hit: hit.start, default=None)

    def _first_whole(self, text: Hashes) -> list[Hit]:
        begins = text.of_width(self.shortest)
        places = self.begins.plausible(begins)
        wanted = begins[places]
        low = np.searchsorted(self.whole[:, 0], wanted, "left")
        high = np.searchsorted(self.whole[:, 0], wanted, "right")
        counts = high - low
        starts = np.repeat(places, counts)
        rows = np.repeat(low - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        ends = starts + self.lengths[rows, 0]
        within = ends <= text.length
        starts, rows, ends = starts[within], rows[within], ends[within]
        same = np.flatnonzero(text.between(starts, ends) == self.whole[rows, 1])[:1]
        return [Hit(int(starts[at]), *map(int, self.lengths[rows[at]])) for at in same]


@dataclass(frozen=True)
class _Keys:
    """Hashes, ascending, with a table that says quickly of most others that they are none of them."""

    keys: Numbers
    sources: npt.NDArray[np.int32]
    table: npt.NDArray[np.bool_]
    shift: np.uint64

    @classmethod
    def of(cls, keys: Numbers, sources: npt.NDArray[np.int32] | None = None) -> _Keys:
        keys, firsts = np.unique(keys, return_index=True)
        bits = max(10, (_SLOTS_AN_ENTRY * len(keys)).bit_length())
        shift = np.uint64(64 - bits)
        table = np.zeros(1 << bits, np.bool_)
        table[keys >> shift] = True
        return cls(keys, np.empty(0, np.int32) if sources is None else sources[firsts], table, shift)

    @property
    def count(self) -> int:
        return len(self.keys)

    def plausible(self, hashes: Numbers) -> Places:
        """Returns the places of hashes that may be keys."""
        return np.flatnonzero(self.table[hashes >> self.shift])

    def find(self, hashes: Numbers) -> tuple[Places, Places]:
        """Returns which keys are among the hashes, and their places, ascending."""
        places = self.plausible(hashes)
        found = np.minimum(np.searchsorted(self.keys, hashes[places]), max(0, self.count - 1))
        same = self.keys[found] == hashes[places]
        return found[same], places[same]


_kept: dict[int, Numbers] = {}


def _powers(base: int, count: int) -> Numbers:
    """Returns the powers of a number modulo 2^64, from the first."""
    known = _kept.get(base)
    if known is None or len(known) < count:
        known = np.full(max(count, 1 << 16), base, np.uint64)
        known[0] = 1
        with np.errstate(over="ignore"):
            np.multiply.accumulate(known, out=known)
        if len(known) <= _MOST_KEPT:
            _kept[base] = known
    return known[:count]


_MOST_KEPT = 1 << 21
