"""Two things measured in turn, block by block, so that a machine that slows down slows both; and the ratio with its interval.

Blocks come in pairs, and which of the two goes first alternates. A pair gives one ratio; shown is the median of the pairs'
ratios and the interval that holds the true median with 95% (order statistics of the binomial; Conover, Practical
Nonparametric Statistics, 3.2): it assumes nothing of the noise but that pairs are alike. Fewer than 6 pairs cannot give 95%:
then the interval is the range, and `confidence` says what that holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from statistics import median


@dataclass(frozen=True)
class Ratio:
    """First over second, of paired blocks."""

    median: float
    lower: float
    upper: float
    confidence: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.lower:.3f}, {self.upper:.3f}] ({self.confidence:.0%}, {self.pairs} pairs)"


def in_turn(
    first: Callable[[], float], second: Callable[[], float], pairs: int
) -> tuple[list[float], list[float]]:
    """What each gave, by pair."""
    firsts: list[float] = []
    seconds: list[float] = []
    for pair in range(pairs):
        order = [(first, firsts), (second, seconds)]
        for measure, into in order if pair % 2 == 0 else order[::-1]:
            into.append(measure())
    return firsts, seconds


def ratio(firsts: Sequence[float], seconds: Sequence[float]) -> Ratio:
    """Of paired blocks."""
    ratios = sorted(a / b for a, b in zip(firsts, seconds, strict=True))
    n = len(ratios)
    outside = 0  # order statistics left out at each end
    while 2 * (outside + 1) < n and _covered(n, outside + 1) >= 0.95:
        outside += 1
    return Ratio(median(ratios), ratios[outside], ratios[n - 1 - outside], _covered(n, outside), n)


def _covered(n: int, outside: int) -> float:
    """Probability that the true median lies within, with that many left out at each end."""
    return float(1 - 2 * sum(comb(n, k) for k in range(outside + 1)) / 2**n)
