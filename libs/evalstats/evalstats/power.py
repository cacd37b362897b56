"""How many items a conclusion needs."""

from __future__ import annotations

import math

from scipy.stats import norm

from evalstats.cluster import design_effect
from evalstats.paired import PairedValues

SMALLEST_MARGIN = 1e-6
"""Below it no data set of this world would be large enough, and the numbers leave 64 bits."""


def items_needed(variance: float, margin: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Items to show with probability `power` that an unchanged model is not worse by `margin`, one-sided
    `alpha`.

    n = (z_{1-alpha} + z_{power})^2 * variance / margin^2, where variance is that of one item's paired gain
    (for accuracy without a true difference: the share of discordant items). Source: Miller, arXiv 2411.00640,
    section 5, one-sided; Nam, Biometrics 53 (1997) 1422-1430. Normal approximation: a few items low when the
    answer is below about 50. Example: 10% discordant, margin 0.02: 1,546 items; margin 0.05: 248.
    """
    if margin < SMALLEST_MARGIN:
        raise ValueError(f"a margin of {margin} cannot be concluded with any sensible number of items")
    spread = float(norm.ppf(1 - alpha) + norm.ppf(power))
    # At least two items: one has no variance.
    return max(2, math.ceil(spread**2 * variance / margin**2 - 1e-9))


def items_to_conclude(pairs: PairedValues, margin: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """`items_needed` at the variance, or for accuracy the discordance, and the clustering seen in `pairs`.

    Where no item differed, the variance is taken as one discordant item in the sample: zero would promise too
    much.
    """
    gains = pairs.gains
    floor = 1.0 / pairs.n if pairs.metric.binary else 0.0
    spread = float((gains**2).mean()) if pairs.metric.binary else float(gains.var())
    effect = design_effect(gains, pairs.clusters)
    return items_needed(max(spread, floor) * effect, margin, alpha, power)
