"""A test by betting: the capital of a gambler who bets, item after item, that the mean is above a null value.

Observations h lie in [-1, 1] and the null hypothesis is E h <= null. Before each item the gambler stakes a fraction f
of the capital, 0 <= f < 1, on h being above null: the item multiplies the capital by 1 + f (h - null) / (1 + null),
which is never negative and, under the null hypothesis, 1 at most on average. So the chance that the capital ever
reaches 1 / alpha is at most alpha, whenever and however often anyone looks (Ville 1939; Waudby-Smith and Ramdas,
"Estimating means of bounded random variables by betting", JRSS B 86 (2024) 1-27). This holds for any fractions that
depend on earlier items alone, at any sample size, for any distribution on [-1, 1] with independent items.

The fractions decide only how fast a true alternative is shown. The capital is an average over several gamblers:

- one who bets what is best (Kelly) against the alternative that the product cares about, `target`, for outcomes of
  which a share d is -1 or 1 and the rest 0, with d estimated from earlier items; or, where no alternative is named,
  one who estimates the mean itself (aGRAPA in the paper);
- gamblers with constant fractions, for all other alternatives.

No fraction depends on the value that is tested, only on `Design`. So the capital falls as the tested value rises, item
by item, and the values that are not rejected are an interval: its end is a bound that holds at all times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from evalstats.bets import (
    ADAPTIVE_WEIGHT,
    CONSTANT_FRACTIONS,
    HIGHEST_FRACTION,
    PRIOR_ITEMS,
    PRIOR_SQUARE,
    TARGET_WEIGHT,
    Design,
)
from evalstats.paired import Floats

_SMALLEST = 1e-9
"""Distance to the ends of [-1, 1] up to which values are tested: capital stays finite."""
_STEPS = 48
"""Halvings of [-1, 1]: a bound is exact to 1e-14."""


@dataclass
class Capital:
    """The gamblers' capital on many independent sequences of observations at once.

    `extend` may be called with one part of the sequences after another: the result is the same.
    """

    design: Design
    sequences: int

    def __post_init__(self) -> None:
        named = TARGET_WEIGHT if self.design.target is not None else ADAPTIVE_WEIGHT
        others = len(CONSTANT_FRACTIONS)
        self.weights = np.log(np.array([named] + [(1 - named) / others] * others))
        self._logs = np.zeros((self.sequences, 1 + others))
        self._items = 0
        self._sum = np.zeros(self.sequences)
        self._squares = np.zeros(self.sequences)

    def extend(self, observations: Floats) -> Floats:
        """Natural logarithm of the capital after each item: float64 [sequences, items]."""
        logs = self._log_factors(observations, self.fractions(observations), self.design.null)
        total = np.cumsum(logs, axis=-1) + self._logs.T[:, :, None]
        self._logs = total[:, :, -1].T.copy()
        return np.asarray(np.logaddexp.reduce(total + self.weights[:, None, None], axis=0))

    def keep(self, chosen: NDArray[np.bool_]) -> None:
        """Goes on with the chosen sequences alone."""
        self._logs, self._sum, self._squares = self._logs[chosen], self._sum[chosen], self._squares[chosen]
        self.sequences = len(self._sum)

    def fractions(self, observations: Floats) -> Floats:
        """Each gambler's stake on each item, from earlier items alone: float64 [gamblers, sequences, items]."""
        sums = np.cumsum(observations, axis=-1) + self._sum[:, None]
        squares = np.cumsum(observations**2, axis=-1) + self._squares[:, None]
        before = self._items + np.arange(observations.shape[-1])
        shifted_sums = np.concatenate([self._sum[:, None], sums[:, :-1]], axis=-1)
        shifted_squares = np.concatenate([self._squares[:, None], squares[:, :-1]], axis=-1)
        self._items += observations.shape[-1]
        self._sum, self._squares = sums[:, -1].copy(), squares[:, -1].copy()
        square = (PRIOR_ITEMS * PRIOR_SQUARE + shifted_squares) / (PRIOR_ITEMS + before)
        if self.design.target is not None:
            shares, best = _kelly(self.design.null, self.design.target)
            named = np.interp(square, shares, best)
        else:
            named = self._adaptive(before, shifted_sums, square)
        constant = [np.broadcast_to(fraction, named.shape) for fraction in CONSTANT_FRACTIONS]
        return np.stack([named, *constant])

    def _adaptive(self, before: NDArray[np.int64], sums: Floats, square: Floats) -> Floats:
        null = self.design.null
        mean = (PRIOR_ITEMS * (null + PRIOR_SQUARE) + sums) / (PRIOR_ITEMS + before)
        about_null = square - 2 * null * mean + null**2
        return np.clip((1 + null) * (mean - null) / np.maximum(about_null, 1e-6), 0.0, 0.9)

    @staticmethod
    def _log_factors(observations: Floats, fractions: Floats, value: float) -> Floats:
        return np.asarray(np.log1p(fractions * ((observations - value) / (1 + value))))


def highest_rejected(observations: Floats, design: Design, threshold: float) -> float:
    """Returns the highest value that some beginning of `observations` [items] rejects; -1 where none is.

    A value is rejected when the logarithm of the capital against it reached `threshold`. The mean is above the
    returned value, with the error exp(-threshold) over all numbers of items together.
    """
    capital = _against(observations, design)
    low, high = -1.0, 1.0
    if capital(-1 + _SMALLEST) < threshold:
        return low
    low = -1 + _SMALLEST
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if capital(middle) >= threshold else (low, middle)
    return low


def highest_log_capital(observations: Floats, design: Design, value: float) -> float:
    """Returns the highest logarithm of the capital against `value` over all beginnings of `observations` [items]."""
    return _against(observations, design)(value)


def _against(observations: Floats, design: Design) -> Callable[[float], float]:
    gamblers = Capital(design, 1)
    fractions = gamblers.fractions(observations[None, :])[:, 0, :]

    def highest(value: float) -> float:
        logs = np.cumsum(Capital._log_factors(observations, fractions, value), axis=-1)
        return float(np.logaddexp.reduce(logs + gamblers.weights[:, None], axis=0).max())

    return highest


@lru_cache(maxsize=64)
def _kelly(null: float, target: float) -> tuple[Floats, Floats]:
    """The fraction that makes the capital grow fastest, by the share of observations that are -1 or 1.

    Observations: 1 with (d + target) / 2, -1 with (d - target) / 2, else 0. Found by bisection of the slope of the
    mean logarithm, which falls as the fraction rises.
    """
    shares = np.linspace(0.0, 1.0, 257) ** 2
    changed = np.maximum(shares, abs(target))
    up, down, same = (changed + target) / 2, (changed - target) / 2, 1 - changed
    reach = 1 + null
    low, high = np.zeros_like(shares), np.full_like(shares, HIGHEST_FRACTION)
    for _ in range(50):
        fraction = (low + high) / 2
        slope = sum(
            share * pay / (1 + fraction * pay)
            for share, pay in ((up, (1 - null) / reach), (same, -null / reach), (down, -1.0))
        )
        low, high = np.where(slope > 0, fraction, low), np.where(slope > 0, high, fraction)
    return shares, low
