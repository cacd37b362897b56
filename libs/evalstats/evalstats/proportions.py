"""Intervals for one proportion and for the difference of two paired proportions."""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.stats import norm


def wilson(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion.

    Source: Wilson, JASA 22 (1927) 209-212. Assumes independent items; with clusters, pass counts divided by
    the design effect. Holds its level on average even at n = 10, and is never empty or outside [0, 1].
    """
    z = norm.ppf(0.5 + confidence / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def tango(improved: float, worsened: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of (improved - worsened) / n, the difference of two paired proportions.

    Source: Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17 (1998) 891-908. The limits are the differences that the
    score test, with the nuisance proportion at its restricted maximum-likelihood value, just does not reject;
    its lower limit at confidence 1 - 2a is the one-sided test for non-inferiority at level a (Nam 1997).
    Assumes independent pairs; with clusters, pass counts divided by the design effect (they need not be
    whole). Small samples: near its nominal level from about n = 30, and unlike Wald's it has width where no
    pair is discordant.
    """
    if n <= 0 or improved < 0 or worsened < 0 or improved + worsened > n * (1 + 1e-9):
        raise ValueError(f"not a paired table: {improved} improved and {worsened} worsened of {n}")
    z = float(norm.ppf(0.5 + confidence / 2))
    estimate = (improved - worsened) / n

    def score(delta: float) -> float:
        """The score statistic of the hypothesis that the difference is delta; falls as delta rises."""
        b = (2 * n - improved + worsened) * delta - improved - worsened
        c = -worsened * delta * (1 - delta)
        nuisance = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        variance = n * (2 * nuisance + delta * (1 - delta))
        distance = improved - worsened - n * delta
        if variance <= 0:
            return 0.0 if distance == 0 else math.copysign(math.inf, distance)
        return distance / math.sqrt(variance)

    def limit(target: float, low: float, high: float) -> float:
        # A finite stand-in for infinity, so that the root finder can bracket at the ends.
        return float(brentq(lambda d: max(-1e9, min(1e9, score(d) - target)), low, high, xtol=1e-13))

    edge = 1 - 1e-12
    lower = -1.0 if estimate <= -edge else limit(z, -edge, estimate)
    upper = 1.0 if estimate >= edge else limit(-z, estimate, edge)
    return lower, upper
