"""What a suite's result means, in one sentence for people."""

from __future__ import annotations

from evalstats.comparison import Comparison
from evalstats.metric import Metric
from evalstats.policy import Role, SuitePolicy, Verdict
from evalstats.sequential import Sequential


def finding(
    *,
    suite: SuitePolicy,
    metric: Metric,
    verdict: Verdict,
    regressed: bool,
    comparison: Comparison,
    test: Sequential,
    available: int,
    items_needed: int | None,
) -> str:
    """Returns what was shown, then what was measured: both models' values, the gain, its bounds and the items.

    The bounds are those of the sequential test: they hold although scoring stopped at a verdict. Each is the best that any
    beginning of the items showed, so they may exclude the last estimate.
    """
    unit = "" if metric.binary else " bits per byte"
    required = "required above" if suite.role is Role.DOMAIN else "margin"
    measured = (
        f"{metric.value} {comparison.base.value:.3f} -> {comparison.tuned.value:.3f}; "
        f"gain {comparison.gain:+.3f}{unit}, "
        f"shown at some number of items: above {test.lower_bound:+.3f}, below {test.upper_bound:+.3f}"
        f"{f', each change counted up to {test.bound:g}' if test.clipped else ''}; "
        f"{comparison.n:,} items; {required} {suite.margin:.3f}"
    )
    if verdict is Verdict.INCOMPLETE:
        said = f"not decided: {min(suite.items, available):,} items may be asked"
    elif suite.role is Role.DOMAIN:
        said = "gain shown" if verdict is Verdict.PASS else "no gain shown"
    elif verdict is Verdict.PASS:
        said = "kept within the margin" + (", though worse beyond chance" if regressed else "")
    elif verdict is Verdict.FAILED:
        said = "lost beyond the margin"
    elif regressed:
        said = "worse beyond chance, and not shown to be within the margin"
    elif comparison.gain <= -suite.margin:
        said = "not shown to be kept: the measured loss reaches the margin"
    else:
        said = "not shown to be kept"
    return f"{suite.name}: {said} ({measured}){_advice(items_needed, comparison.n, available)}"


def _advice(items_needed: int | None, n: int, available: int) -> str:
    if items_needed is None or items_needed <= n:
        return ""
    enough = "" if items_needed <= available else f", the suite has {available:,}"
    return f"; a model without any loss passes within {items_needed:,} items in 80% of cases{enough}"


def may_advise(verdict: Verdict, suite: SuitePolicy, comparison: Comparison, test: Sequential) -> bool:
    """Whether a number of items may stand beside the result: no verdict, and nothing measured speaks against the model.

    Not where the loss is beyond chance (by either interval), nor where the best estimate of it reaches the margin.
    """
    return (
        suite.role is Role.RETAINED
        and verdict in {Verdict.INCONCLUSIVE, Verdict.INCOMPLETE}
        and comparison.gain > -suite.margin
        and comparison.interval.upper >= 0
        and test.upper_bound >= 0
    )
