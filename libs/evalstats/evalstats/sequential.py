"""A suite's sequential test: its verdict may be asked for after every item, and is the same whoever looked when.

Items stand in the fixed order of `evalstats.order`. The test reads the first item of each cluster: those are
independent of each other. A gain outside [-bound, bound] counts as the bound (bits per byte; accuracy cannot leave
it), so what is tested is the mean of the clipped gain.

Two tests by betting run along the items. One shows that the gain is above the threshold (minus the margin on a
retained suite, the required gain on a domain suite): a pass, with error alpha. On a retained suite the other shows
that it is below: a failure, with error alpha over all retained suites together, because each is held to alpha over
their number. The verdict is whichever is shown first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from evalstats.bets import designs, gain_bound
from evalstats.betting import Capital, highest_log_capital, highest_rejected
from evalstats.paired import Floats, Ints, PairedValues
from evalstats.policy import GatePolicy, Role, SuitePolicy, Verdict, settled


@dataclass(frozen=True, kw_only=True)
class Sequential:
    """What the sequential test of one suite says."""

    verdict: Verdict
    """PASS, FAILED or INCONCLUSIVE."""
    decided_after: int | None
    """Items, in the fixed order, after which the verdict stood."""
    observations: int
    """Clusters whose first item was read."""
    clipped: int
    """Observations whose gain counts as the bound."""
    bound: float
    pass_log_capital: float
    """Highest natural logarithm of the capital bet on a pass."""
    pass_threshold: float
    """A pass is shown at this logarithm: ln(1 / alpha)."""
    fail_log_capital: float
    """Likewise for a failure; 0 on a domain suite, which cannot fail."""
    fail_threshold: float
    lower_bound: float
    """The mean clipped gain is above it, with error alpha over all numbers of items together."""
    upper_bound: float
    """It is below, with the error of a failure."""
    worse_p: float
    """Of "the tuned model is worse at all", valid at any number of items: 1 over the highest capital."""


def independent(pairs: PairedValues) -> Ints:
    """Positions of the first item of each cluster, int64 [clusters], in the order of the items."""
    return np.sort(np.unique(pairs.clusters, return_index=True)[1]).astype(np.int64)


def sequential(pairs: PairedValues, suite: SuitePolicy, *, alpha: float, retained: int) -> Sequential:
    """The test over all items of `pairs`, which stand in the fixed order.

    `retained`: retained suites of the policy, over which the error of a failure is spread.
    """
    positions, bound = independent(pairs), gain_bound(pairs.metric, suite.margin)
    gains = pairs.gains[positions]
    scaled = np.clip(gains, -bound, bound) / bound
    above, below = designs(suite, bound)
    thresholds = math.log(1 / alpha), math.log(max(1, retained) / alpha)
    passing = Capital(above, 1).extend(scaled[None, :])[0]
    failing = np.zeros(len(scaled))
    if suite.role is Role.RETAINED:
        failing = Capital(below, 1).extend(-scaled[None, :])[0]
    passed, failed = _first(passing, thresholds[0]), _first(failing, thresholds[1])
    verdict, decided = Verdict.INCONCLUSIVE, None
    if min(passed, failed) < len(scaled):
        verdict = Verdict.PASS if passed < failed else Verdict.FAILED
        decided = int(positions[min(passed, failed)]) + 1
    worse = highest_log_capital(-scaled, below, 0.0)
    return Sequential(
        verdict=verdict,
        decided_after=decided,
        observations=len(scaled),
        clipped=int(np.count_nonzero(np.abs(gains) > bound)),
        bound=bound,
        pass_log_capital=max(0.0, float(passing.max())),
        pass_threshold=thresholds[0],
        fail_log_capital=max(0.0, float(failing.max())),
        fail_threshold=thresholds[1],
        lower_bound=bound * highest_rejected(scaled, above, thresholds[0]),
        upper_bound=-bound * highest_rejected(-scaled, below, thresholds[1]),
        worse_p=math.exp(-max(0.0, worse)),
    )


@dataclass(frozen=True)
class Progress:
    """How far the evaluation of a suite has come."""

    verdict: Verdict
    """PASS or FAILED; INCONCLUSIVE when all items are used up; INCOMPLETE when more are needed."""
    decided_after: int | None

    @property
    def more(self) -> bool:
        """Whether more items are to be scored."""
        return self.verdict is Verdict.INCOMPLETE


def verdict_so_far(policy: GatePolicy, name: str, pairs: PairedValues, *, available: int) -> Progress:
    """Whether a suite of the policy needs more items than `pairs`, which begin its fixed order.

    `available`: items that the suite has at all. Raises KeyError for a suite that the policy lacks.
    """
    suite = policy.suite(name)
    if suite is None:
        raise KeyError(name)
    test = sequential(pairs, suite, alpha=policy.alpha, retained=policy.retained)
    return Progress(settled(test.verdict, suite, items=pairs.n, available=available), test.decided_after)


def _first(log_capital: Floats, threshold: float) -> int:
    """Index of the first item at which the threshold is reached; the number of items where it never is."""
    reached = log_capital >= threshold
    return int(reached.argmax()) if reached.any() else len(log_capital)
