"""The capital of `betting` on one sequence, in plain Python: for programs that decide without numpy.

Same bets, same formula, written a second time. A test holds both to each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from evalstats.bets import (
    ADAPTIVE_WEIGHT,
    CONSTANT_FRACTIONS,
    HIGHEST_FRACTION,
    PRIOR_ITEMS,
    PRIOR_SQUARE,
    TARGET_WEIGHT,
    Design,
)

_GRID = 256
"""The fraction of a named alternative is looked up at the shares (i / 256)^2, and interpolated between them."""
_HALVINGS = 50


def log_capital(observations: Sequence[float], design: Design, value: float | None = None) -> list[float]:
    """Natural logarithm of the capital after each observation in [-1, 1], against `value` (None: the design's null).

    See `evalstats.betting.Capital`.
    """
    against = design.null if value is None else value
    named_weight = TARGET_WEIGHT if design.target is not None else ADAPTIVE_WEIGHT
    other_weight = (1 - named_weight) / len(CONSTANT_FRACTIONS)
    log_weights = [math.log(named_weight)] + [math.log(other_weight)] * len(CONSTANT_FRACTIONS)
    logs, found = list(log_weights), []
    named = _named(design)
    total = squares = 0.0
    for before, observation in enumerate(observations):
        pay = (observation - against) / (1 + against)
        fractions = (named(before, total, squares), *CONSTANT_FRACTIONS)
        for gambler, fraction in enumerate(fractions):
            logs[gambler] += math.log1p(fraction * pay)
        highest = max(logs)
        found.append(highest + math.log(sum(math.exp(log - highest) for log in logs)))
        total += observation
        squares += observation**2
    return found


def _named(design: Design) -> Callable[[int, float, float], float]:
    """The stake of the first gambler, from the number, the sum and the sum of squares of earlier observations."""

    def share(before: int, squares: float) -> float:
        return (PRIOR_ITEMS * PRIOR_SQUARE + squares) / (PRIOR_ITEMS + before)

    if design.target is not None:
        null, target = design.null, design.target
        return lambda before, _total, squares: _interpolated(share(before, squares), null, target)

    def adaptive(before: int, total: float, squares: float) -> float:
        null, square = design.null, share(before, squares)
        mean = (PRIOR_ITEMS * (null + PRIOR_SQUARE) + total) / (PRIOR_ITEMS + before)
        about_null = square - 2 * null * mean + null**2
        return min(0.9, max(0.0, (1 + null) * (mean - null) / max(about_null, 1e-6)))

    return adaptive


def _interpolated(share: float, null: float, target: float) -> float:
    below = min(_GRID - 1, int(math.sqrt(share) * _GRID))
    while below and (below / _GRID) ** 2 > share:
        below -= 1
    low, high = (below / _GRID) ** 2, ((below + 1) / _GRID) ** 2
    at_low, at_high = _kelly(below, null, target), _kelly(below + 1, null, target)
    return at_low + (at_high - at_low) * min(1.0, (share - low) / (high - low))


@lru_cache(maxsize=4096)
def _kelly(place: int, null: float, target: float) -> float:
    """The fraction that makes the capital grow fastest at the share (place / 256)^2, see `betting._kelly`."""
    changed = max((place / _GRID) ** 2, abs(target))
    up, down = (changed + target) / 2, (changed - target) / 2
    outcomes = ((up, (1 - null) / (1 + null)), (1 - changed, -null / (1 + null)), (down, -1.0))
    low, high = 0.0, HIGHEST_FRACTION
    for _ in range(_HALVINGS):
        fraction = (low + high) / 2
        slope = sum(chance * pay / (1 + fraction * pay) for chance, pay in outcomes)
        low, high = (fraction, high) if slope > 0 else (low, fraction)
    return low
