"""What the sequential test of a suite bets on: fractions, null values and the errors that they are held to.

Needs nothing but the standard library: `betting` computes with it in arrays, `plain_betting` without numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

from evalstats.metric import Metric
from evalstats.policy import Role, SuitePolicy

CONSTANT_FRACTIONS = (0.03, 0.08, 0.15, 0.25, 0.4, 0.6, 0.8, 0.95)
TARGET_WEIGHT = 0.7
"""Of the gambler with a named alternative; chosen by simulation, see docs/decisions/sequential-gate.md."""
ADAPTIVE_WEIGHT = 0.5
PRIOR_ITEMS = 10.0
PRIOR_SQUARE = 0.1
"""Mean square of an observation, worth `PRIOR_ITEMS` items, before any is seen."""
HIGHEST_FRACTION = 0.99
_BITS_BOUND = 0.5
"""Bits per byte that one text's change counts at most: a careful run changes texts by hundredths."""


@dataclass(frozen=True)
class Design:
    """The null value that the fractions are made for, and the mean that they are best against (None: any)."""

    null: float
    target: float | None

    def __post_init__(self) -> None:
        if not -1 < self.null < 1 or (self.target is not None and not self.null < self.target < 1):
            raise ValueError(
                f"null {self.null} and target {self.target} must lie in (-1, 1), target above null"
            )


def gain_bound(metric: Metric, margin: float) -> float:
    """Returns the largest gain that counts: 1 for accuracy, else half a bit per byte, or twice the margin if larger."""
    return 1.0 if metric.binary else max(_BITS_BOUND, 2 * margin)


def designs(suite: SuitePolicy, bound: float) -> tuple[Design, Design]:
    """The bets on a pass and, on the gain with the opposite sign, on a failure.

    On a retained suite they are best for a model without any loss, and for one that loses twice the margin.
    """
    margin = suite.margin / bound
    if suite.role is Role.DOMAIN:
        return Design(margin, None), Design(-margin, None)
    return Design(-margin, 0.0), Design(margin, min(2 * margin, (1 + margin) / 2))
