"""Does what a report claims follow from the outcomes that it names? Decided again, without numpy, by who did not make it.

The control plane asks before it records a verdict that a job reports. Each item's value is computed from its
log-likelihoods, each suite's test from the values, the verdicts from the tests. So a job can lie only by log-likelihoods
that no model gave, or by items that its suite does not have. `evalstats.verification` recomputes all other figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalstats import VERSION
from evalstats.bets import designs, gain_bound
from evalstats.outcomes import InvalidOutcomes, Outcomes
from evalstats.plain_betting import log_capital
from evalstats.policy import GatePolicy, Role, Verdict, overall, settled
from evalstats.records import (
    SCHEMA,
    InvalidReport,
    check_outcomes,
    read_outcome_set,
    suite_record,
    tested,
)
from evalstats.rules import value

TOLERANCE = 1e-9
"""Relative and absolute. Sums round differently on different processors; nothing else may differ."""
_BESIDE = 1e-7
"""Distance at which a value is tested on either side of a bound."""

ReadItems = Callable[[str], Mapping[str, Any]]
"""Returns the items object of a digest."""


@dataclass(frozen=True, kw_only=True)
class Ordered:
    """What a report was asked for."""

    base_digest: str
    adapter_digest: str
    outcomes_digest: str
    """Of the outcomes that came with it."""
    policy: GatePolicy | None
    """The effective gate policy; None for an evaluation from before there were any."""


def contradictions(
    report: Mapping[str, Any], outcomes: Mapping[str, Any], ordered: Ordered, items: ReadItems
) -> list[str]:
    """Returns what a report claims and what does not follow, a sentence each; empty when all follows.

    A suite's claims are compared only where its inputs are right. The caller has checked the digests of the objects.
    """
    try:
        return list(_contradictions(report, outcomes, ordered, items))
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        return [f"it is malformed: {error!r}"]


def _contradictions(
    report: Mapping[str, Any], outcomes: Mapping[str, Any], ordered: Ordered, items: ReadItems
) -> Iterator[str]:
    form = report["schema"], report["statistics_version"]
    if form != (SCHEMA, VERSION):
        yield f"it has schema and statistics version {form}, not {(SCHEMA, VERSION)}"
        return
    policy = GatePolicy.from_json(report["policy"])
    yield from _differs("policy_digest", report["policy_digest"], policy.digest)
    if ordered.policy is not None:
        yield from _differs("policy", policy.digest, ordered.policy.digest)
    models = ordered.base_digest, ordered.adapter_digest
    yield from _differs("models", (report["base"], report["adapter"]), models)
    yield from _differs("outcomes", report["outcomes"], ordered.outcomes_digest)
    suites, pairs = report["suites"], read_outcome_set(outcomes)
    names = [suite["name"] for suite in suites]
    if len(set(names)) != len(names) or len(pairs) != len(names):
        yield f"it has suites {', '.join(names)} and outcomes of {len(pairs)}"
        return
    verdicts: dict[str, Verdict] = {}
    for suite, pair in zip(suites, pairs, strict=True):
        try:
            claim = _Claim(suite, pair, policy, models, items)
        except (InvalidReport, InvalidOutcomes) as error:
            yield str(error)
            continue
        verdicts[claim.suite.name] = claim.verdict
        yield from claim.contradictions()
    yield from _gate(report["gate"], verdicts, policy)


def _gate(gate: Mapping[str, Any], verdicts: Mapping[str, Verdict], policy: GatePolicy) -> Iterator[str]:
    counted = {verdict for name, verdict in verdicts.items() if policy.suite(name) is not None}
    missing = [suite.name for suite in policy.suites if suite.name not in verdicts]
    yield from _differs("missing suites", list(gate["missing"]), missing)
    yield from _differs("verdict", gate["verdict"], overall(counted, missing).value)


class _Claim:
    """What a report says of one suite, and what its outcomes say."""

    def __init__(
        self,
        suite: Mapping[str, Any],
        pair: tuple[Outcomes, Outcomes],
        policy: GatePolicy,
        models: tuple[str, str],
        items: ReadItems,
    ) -> None:
        """Raises InvalidReport or InvalidOutcomes where outcomes do not belong to the suite, or values to log-likelihoods."""
        self._said, self._record = suite, suite_record(suite)
        base, tuned = pair
        check_outcomes(self._record, base, tuned, models=models, seed=policy.seed)
        self.suite = tested(self._record, policy, len(base.items))
        if self._record.digest != self._record.named:
            raise InvalidReport(
                f"{self.suite.name}: its digest is {self._record.digest}, its parts have {self._record.named}"
            )
        self._check_values(pair, items(self._record.items_digest))
        metric = self._record.rule.metric
        clusters = dict[str, int]()
        for place, item in enumerate(base.items):
            clusters.setdefault(item.cluster, place)
        self._places = sorted(clusters.values())
        self._values = [[item.value for item in side.items] for side in pair]
        gains = [metric.sign * (after - before) for before, after in zip(*self._values, strict=True)]
        self._gains = gains
        self._bound = gain_bound(metric, self.suite.margin)
        self._scaled = [
            min(self._bound, max(-self._bound, gains[place])) / self._bound for place in self._places
        ]
        self._design_above, self._design_below = designs(self.suite, self._bound)
        self._thresholds = math.log(1 / policy.alpha), math.log(max(1, policy.retained) / policy.alpha)
        self._counted = policy.suite(self.suite.name) is not None
        self._decide()

    def _decide(self) -> None:
        self._passing = log_capital(self._scaled, self._design_above)
        opposite = [-gain for gain in self._scaled]
        self._failing = (
            log_capital(opposite, self._design_below) if self.suite.role is Role.RETAINED else [0.0]
        )
        firsts = [
            next((place for place, log in enumerate(logs) if log >= threshold), len(self._scaled))
            for logs, threshold in zip((self._passing, self._failing), self._thresholds, strict=True)
        ]
        verdict, self._decided = Verdict.INCONCLUSIVE, None
        if min(firsts) < len(self._scaled):
            verdict = Verdict.PASS if firsts[0] < firsts[1] else Verdict.FAILED
            self._decided = self._places[min(firsts)] + 1
        self.verdict = settled(verdict, self.suite, items=len(self._gains), available=self._record.available)

    def _check_values(self, pair: tuple[Outcomes, Outcomes], items: Mapping[str, Any]) -> None:
        record, entries = self._record, items["items"]
        for side in pair:
            asked = [(entry["id"], entry["cluster"]) for entry in entries]
            if asked != [(outcome.item, outcome.cluster) for outcome in side.items]:
                raise InvalidReport(f"{record.name}: its outcomes are of other items than it names")
            for entry, outcome in zip(entries, side.items, strict=True):
                found = value(record.rule, outcome.log_likelihoods, entry["options"], entry["gold"])
                if not _same(outcome.value, found):
                    raise InvalidReport(
                        f"{record.name}: item {outcome.item} has the value {outcome.value}, its log-likelihoods give "
                        f"{found} by {record.rule}"
                    )

    def contradictions(self) -> Iterator[str]:
        """Yields what the report says of the suite and its outcomes do not."""
        said, test, statistics = self._said, self._said["test"], self._said["statistics"]
        passing, failing = max(0.0, *self._passing), max(0.0, *self._failing)
        base, tuned = (math.fsum(side) / len(side) for side in self._values)
        for what, claimed, found in (
            ("verdict", said["verdict"], self.verdict.value),
            ("counted", said["counted"], self._counted),
            ("items", statistics["n"], len(self._gains)),
            ("base", statistics["base"]["value"], base),
            ("tuned", statistics["tuned"]["value"], tuned),
            ("gain", statistics["gain"]["value"], math.fsum(self._gains) / len(self._gains)),
            ("items until the verdict", test["decided_after"], self._decided),
            ("observations", test["observations"], len(self._scaled)),
            ("bound of a gain", test["bound"], self._bound),
            ("capital of a pass", test["pass"]["log_capital"], passing),
            ("threshold of a pass", test["pass"]["threshold"], self._thresholds[0]),
            ("capital of a failure", test["fail"]["log_capital"], failing),
            ("threshold of a failure", test["fail"]["threshold"], self._thresholds[1]),
        ):
            yield from _differs(f"{self.suite.name}, {what}", claimed, found)
        yield from self._bounds(test["gain_lower_bound"], test["gain_upper_bound"])

    def _bounds(self, lower: float, upper: float) -> Iterator[str]:
        """The capital reaches its threshold just inside a bound, and not just outside."""
        opposite = [-gain for gain in self._scaled]
        for what, claimed, found in (
            ("lower", lower / self._bound, _rejects(self._scaled, self._design_above, self._thresholds[0])),
            ("upper", -upper / self._bound, _rejects(opposite, self._design_below, self._thresholds[1])),
        ):
            inside, outside = claimed - _BESIDE, claimed + _BESIDE
            if (inside > -1 and not found(inside)) or (outside < 1 and found(outside)):
                shown = lower if what == "lower" else upper
                yield f"{self.suite.name}, {what} bound of the gain: it says {shown}, its outcomes another one"


def _rejects(observations: Sequence[float], design: Any, threshold: float) -> Callable[[float], bool]:
    return lambda tried: max(log_capital(observations, design, tried)) >= threshold


def _differs(what: str, claimed: object, found: object) -> Iterator[str]:
    if not _same(claimed, found):
        yield f"{what}: it says {claimed!r}, its outcomes and its policy {found!r}"


def _same(claimed: object, found: object) -> bool:
    numbers = (int, float)
    if isinstance(claimed, numbers) and isinstance(found, numbers) and not isinstance(found, bool):
        return math.isclose(claimed, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return claimed == found
