"""The promotion gate: what a policy allows to be said about a tuned model.

A retained suite asks for non-inferiority: has the model kept this within the margin? A domain suite asks for
a gain: has it learned what it was tuned for? Each is decided by its sequential test, and the model passes only
if every suite of the policy does; a missing gain harms no other ability, so it makes the model inconclusive, never
failed. That is an intersection-union test (Berger, Technometrics 24 (1982) 295-300): the chance to pass a
model that fails in any suite is at most alpha without correction for the number of suites. A failure needs one
suite alone, so its error is spread over the retained suites: at most alpha for a model within every margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evalstats.comparison import Comparison
from evalstats.findings import finding
from evalstats.metric import Metric
from evalstats.policy import GatePolicy, Role, SuitePolicy, Verdict, overall, settled
from evalstats.sequential import Sequential
from evalstats.signflip import holm

__all__ = ["GateVerdict", "Role", "SuiteResult", "SuiteVerdict", "Verdict", "decide"]


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """What the gate decides from."""

    suite: SuitePolicy
    metric: Metric
    available: int
    """Items that the suite has at all."""
    comparison: Comparison
    test: Sequential
    items_needed: int | None
    """See `evalstats.power.items_to_pass`; None where it is not asked."""

    @property
    def verdict(self) -> Verdict:
        """The suite's own verdict under its part of the policy."""
        return settled(self.test.verdict, self.suite, items=self.comparison.n, available=self.available)


@dataclass(frozen=True, kw_only=True)
class SuiteVerdict:
    name: str
    verdict: Verdict
    counted: bool
    """Whether the policy names the suite: others are reported and decide nothing."""
    regressed: bool
    """Worse than the base beyond chance, all suites together (Holm), at any number of items: may be within the
    margin."""
    regression_p_holm: float
    finding: str
    """One sentence for people."""


@dataclass(frozen=True)
class GateVerdict:
    verdict: Verdict
    suites: tuple[SuiteVerdict, ...]
    missing: tuple[str, ...]
    """Suites of the policy without a result."""

    @property
    def regressed(self) -> list[str]:
        return [suite.name for suite in self.suites if suite.regressed]


def decide(results: Sequence[SuiteResult], policy: GatePolicy) -> GateVerdict:
    """The verdicts of all suites and of the model.

    See `evalstats.policy.overall`. Raises ValueError for a suite that stands twice, or that the policy names with another role
    or margin.
    """
    names = [result.suite.name for result in results]
    for result in results:
        wanted = policy.suite(result.suite.name)
        if names.count(result.suite.name) > 1:
            raise ValueError(f"suite {result.suite.name} stands twice")
        if wanted is not None and wanted != result.suite:
            raise ValueError(
                f"suite {result.suite.name} was tested by {result.suite}, the policy asks for {wanted}"
            )
    adjusted = holm([result.test.worse_p for result in results])
    suites = tuple(_decide_suite(result, p, policy) for result, p in zip(results, adjusted, strict=True))
    missing = tuple(suite.name for suite in policy.suites if suite.name not in names)
    found = {suite.verdict for suite in suites if suite.counted}
    return GateVerdict(overall(found, missing), suites, missing)


def _decide_suite(result: SuiteResult, p_holm: float, policy: GatePolicy) -> SuiteVerdict:
    verdict, regressed = result.verdict, p_holm <= policy.alpha
    return SuiteVerdict(
        name=result.suite.name,
        verdict=verdict,
        counted=policy.suite(result.suite.name) is not None,
        regressed=regressed,
        regression_p_holm=p_holm,
        finding=finding(
            suite=result.suite,
            metric=result.metric,
            verdict=verdict,
            regressed=regressed,
            comparison=result.comparison,
            test=result.test,
            available=result.available,
            items_needed=result.items_needed,
        ),
    )
