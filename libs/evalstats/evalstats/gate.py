"""The promotion gate: what the comparisons allow to be said about a tuned model.

A retained suite asks for non-inferiority: has the model kept this within the margin? A domain suite asks for
a gain: has it learned what it was tuned for? Each is decided by one-sided bounds, and the model passes only
if every suite does; a missing gain blocks nobody's other abilities, so it makes the model inconclusive, never
failed. That is an intersection-union test (Berger, Technometrics 24 (1982) 295-300): the chance to pass a
model that fails in any suite is at most alpha without correction for the number of suites. The price is
power, which the verdict "inconclusive" says openly: it is neither a pass nor a proof of harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from evalstats.comparison import Comparison
from evalstats.paired import Metric
from evalstats.signflip import holm


class Role(StrEnum):
    """What a suite must show."""

    DOMAIN = "domain"
    """The tuned model is better than its base by more than the margin (zero: better at all)."""
    RETAINED = "retained"
    """The tuned model is not worse than its base by the margin or more."""


class Verdict(StrEnum):
    PASS = "pass"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class SuiteResult:
    """What the gate decides from: a suite's name, role, margin and comparison."""

    name: str
    role: Role
    metric: Metric
    margin: float
    """At least 0, in the metric's unit."""
    comparison: Comparison


@dataclass(frozen=True)
class SuiteVerdict:
    name: str
    verdict: Verdict
    regressed: bool
    """Worse than the base beyond chance, all suites together (Holm): may be within the margin."""
    regression_p_holm: float
    finding: str
    """One sentence for people."""


@dataclass(frozen=True)
class GateVerdict:
    verdict: Verdict
    suites: tuple[SuiteVerdict, ...]

    @property
    def regressed(self) -> list[str]:
        return [suite.name for suite in self.suites if suite.regressed]


def decide(results: Sequence[SuiteResult], alpha: float) -> GateVerdict:
    """The verdicts of all suites and of the model. Raises ValueError without suites: nothing would be a
    pass."""
    if not results:
        raise ValueError("a gate without suites would pass anything")
    adjusted = holm([result.comparison.regression_p for result in results])
    suites = tuple(_decide_suite(result, p, alpha) for result, p in zip(results, adjusted, strict=True))
    lost = [
        suite.name
        for suite, result in zip(suites, results, strict=True)
        if result.role is Role.RETAINED and suite.verdict is Verdict.FAILED
    ]
    if lost:
        overall = Verdict.FAILED
    elif all(suite.verdict is Verdict.PASS for suite in suites):
        overall = Verdict.PASS
    else:
        overall = Verdict.INCONCLUSIVE
    return GateVerdict(overall, suites)


def _decide_suite(result: SuiteResult, p_holm: float, alpha: float) -> SuiteVerdict:
    comparison = result.comparison
    regressed = comparison.gain < 0 and p_holm < alpha
    # The least gain that is enough: above it on a domain suite, down to minus the margin on a retained one.
    threshold = result.margin if result.role is Role.DOMAIN else -result.margin
    if comparison.lower_bound > threshold:
        verdict = Verdict.PASS
    elif comparison.upper_bound < threshold or (regressed and comparison.gain < threshold):
        # The second condition: worse beyond chance, and by more than the margin as best estimated.
        verdict = Verdict.FAILED
    else:
        verdict = Verdict.INCONCLUSIVE
    return SuiteVerdict(result.name, verdict, regressed, p_holm, _finding(result, verdict, regressed))


def _finding(result: SuiteResult, verdict: Verdict, regressed: bool) -> str:
    c, unit = result.comparison, "" if result.metric.binary else " bits per byte"
    change = (
        f"{result.metric.value} {c.base.value:.3f} -> {c.tuned.value:.3f}; gain {c.gain:+.3f}{unit}, "
        f"95% interval {c.interval.lower:+.3f} to {c.interval.upper:+.3f}, n = {c.n}"
    )
    if result.role is Role.DOMAIN:
        said = {
            Verdict.PASS: "gain shown",
            Verdict.FAILED: "no gain: the tuned model is not better by the required amount",
            Verdict.INCONCLUSIVE: "no gain shown",
        }[verdict]
        return f"{result.name}: {said} ({change}; required above {result.margin:+.3f})"
    said = {
        Verdict.PASS: "kept within the margin" + (", though worse beyond chance" if regressed else ""),
        Verdict.FAILED: "lost beyond the margin",
        Verdict.INCONCLUSIVE: "not shown to be kept"
        + (", and worse beyond chance" if regressed else "")
        + (f"; about {c.items_needed} items would show it" if (c.items_needed or 0) > c.n else ""),
    }[verdict]
    return f"{result.name}: {said} ({change}; margin {result.margin:.3f})"
