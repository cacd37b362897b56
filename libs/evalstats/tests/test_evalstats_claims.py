"""Whoever records a verdict decides it again: a report that claims what its outcomes do not say is refused, without numpy."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evalstats.bets import Design
from evalstats.betting import Capital, highest_log_capital
from evalstats.claims import Ordered, contradictions
from evalstats.comparison import Method
from evalstats.order import item_order
from evalstats.outcomes import ItemOutcome, Outcomes
from evalstats.plain_betting import log_capital
from evalstats.policy import GatePolicy, Role, SuitePolicy
from evalstats.records import suite_digest
from evalstats.report import Inputs, SuiteRecord, build, outcome_set
from evalstats.rules import Rule, value

BASE, ADAPTER, OUTCOMES = ("sha256:" + digit * 64 for digit in "abc")
VERSION = "sha256:" + "d" * 64
N = 80
OPTIONS = {Rule.ACC: (" yes", " no"), Rule.BITS_PER_BYTE: ("a text of twenty-six bytes",)}
POLICY = GatePolicy(
    suites=(
        SuitePolicy(name="domain", role=Role.DOMAIN, margin=0.0, items=N),
        SuitePolicy(
            name="texts", role=Role.RETAINED, margin=0.05, items=N, rule="bits-per-byte", version=VERSION
        ),
    )
)


def record(name: str, rule: Rule, role: Role, margin: float) -> SuiteRecord:
    parts = {"version": VERSION, "items_digest": f"items-{name}", "template_digest": "template"}
    digest = suite_digest(name=name, rule=rule, **parts)
    return SuiteRecord(name=name, role=role, rule=rule, digest=digest, margin=margin, available=N, **parts)


RECORDS = (
    record("domain", Rule.ACC, Role.DOMAIN, 0.0),
    record("texts", Rule.BITS_PER_BYTE, Role.RETAINED, 0.05),
)
ORDER = item_order([(f"i{n}", f"c{n // 2}") for n in range(N)], POLICY.seed)


def items(digest: str) -> dict[str, Any]:
    rule = next(each.rule for each in RECORDS if each.items_digest == digest)
    entries = [{"id": f"i{n}", "cluster": f"c{n // 2}", "options": OPTIONS[rule], "gold": 0} for n in ORDER]
    return {"schema": "openledger.evaluation.items.v1", "items": entries}


def outcomes(suite: SuiteRecord, adapter: str | None, shift: float) -> Outcomes:
    random, found = np.random.RandomState(1), []
    for n in ORDER:
        options = OPTIONS[suite.rule]
        scores = [round(float(x), 6) for x in random.normal(-20, 1, size=len(options))]
        scores[0] += shift
        found.append(ItemOutcome(f"i{n}", f"c{n // 2}", value(suite.rule, scores, options, 0), tuple(scores)))
    return Outcomes(
        suite_digest=suite.digest,
        base_digest=BASE,
        adapter_digest=adapter,
        compute="fp32",
        items=tuple(found),
    )


Pairs = list[tuple[Outcomes, Outcomes]]
PASSING: Pairs = [(outcomes(each, None, 0.0), outcomes(each, ADAPTER, 3.0)) for each in RECORDS]
FAILING: Pairs = [PASSING[0], (outcomes(RECORDS[1], None, 0.0), outcomes(RECORDS[1], ADAPTER, -9.0))]


def report_of(pairs: Pairs, policy: GatePolicy = POLICY) -> dict[str, Any]:
    inputs = Inputs(
        base_digest=BASE,
        adapter_digest=ADAPTER,
        outcomes_digest=OUTCOMES,
        suites=RECORDS[: len(pairs)],
        policy=policy,
        policy_source=policy.digest,
        method=Method(resamples=1_000),
        compute={},
        packages={},
    )
    return build(inputs, pairs)


ORDERED = Ordered(base_digest=BASE, adapter_digest=ADAPTER, outcomes_digest=OUTCOMES, policy=POLICY)


def said(report: dict[str, Any], pairs: Pairs, ordered: Ordered = ORDERED) -> str:
    return "; ".join(contradictions(report, outcome_set(pairs), ordered, items))


def test_a_truthful_report_is_accepted_whatever_it_says() -> None:
    verdicts = []
    for pairs in (PASSING, FAILING, PASSING[:1]):
        report = report_of(pairs)
        assert said(report, pairs) == ""
        verdicts.append(report["gate"]["verdict"])
    assert verdicts == ["pass", "failed", "incomplete"]


def passed_after_all(report: dict[str, Any]) -> None:
    report["gate"]["verdict"] = "pass"


def passed_on_its_suite_too(report: dict[str, Any]) -> None:
    passed_after_all(report)
    report["suites"][1]["verdict"] = "pass"


def passed_with_bounds_to_match(report: dict[str, Any]) -> None:
    passed_on_its_suite_too(report)
    test = report["suites"][1]["test"]
    test["pass"]["log_capital"], test["fail"]["log_capital"] = 9.0, 0.0
    test["gain_lower_bound"], test["gain_upper_bound"] = -0.01, 0.5


def outside_the_policy(report: dict[str, Any]) -> None:
    passed_after_all(report)
    report["suites"][1]["counted"] = False


def left_out(report: dict[str, Any]) -> None:
    passed_after_all(report)
    del report["suites"][1]


def wider_margin(report: dict[str, Any]) -> None:
    report["suites"][1]["margin"] = 0.5


def other_rule(report: dict[str, Any]) -> None:
    report["suites"][0]["rule"] = "acc_bytes"


def other_version(report: dict[str, Any]) -> None:
    report["suites"][1]["version"] = "sha256:" + "e" * 64


def no_test(report: dict[str, Any]) -> None:
    del report["suites"][1]["test"]


def higher_lower_bound(report: dict[str, Any]) -> None:
    report["suites"][0]["test"]["gain_lower_bound"] += 0.01


@pytest.mark.parametrize(
    ("lie", "named"),
    [
        (passed_after_all, "verdict: it says 'pass', its outcomes and its policy 'failed'"),
        (passed_on_its_suite_too, "texts, verdict: it says 'pass'"),
        (passed_with_bounds_to_match, "texts, capital of a failure"),
        (outside_the_policy, "texts, counted"),
        (left_out, "outcomes of 2"),
        (wider_margin, "the policy says retained within 0.05"),
        (other_rule, "its digest is"),
        (other_version, "is not sha256:dddd"),
        (no_test, "it is malformed: KeyError('test')"),
        (higher_lower_bound, "domain, lower bound of the gain"),
    ],
)
def test_each_lie_is_refused_and_named(lie: Callable[[dict[str, Any]], None], named: str) -> None:
    report = copy.deepcopy(report_of(FAILING))
    lie(report)
    assert named in said(report, FAILING)


def test_values_that_do_not_follow_from_log_likelihoods_are_refused() -> None:
    """The report agrees with its outcomes, which are not what their log-likelihoods give."""
    base, tuned = FAILING[1]
    better = tuple(replace(item, value=item.value / 2) for item in tuned.items)
    pairs = [FAILING[0], (base, replace(tuned, items=better))]
    report = report_of(pairs)
    assert report["gate"]["verdict"] == "pass"
    assert "its log-likelihoods give" in said(report, pairs)


def test_a_report_by_another_policy_of_other_models_or_outcomes_is_refused() -> None:
    loose = replace(POLICY, suites=(POLICY.suites[0], replace(POLICY.suites[1], margin=0.05)), alpha=0.2)
    assert said(report_of(PASSING, loose), PASSING).startswith("policy: it says")
    report = report_of(PASSING)
    report["policy_digest"] = loose.digest
    assert said(report, PASSING).startswith("policy_digest: it says")
    for other in ({"base_digest": ADAPTER}, {"adapter_digest": BASE}, {"outcomes_digest": BASE}):
        assert said(report_of(PASSING), PASSING, replace(ORDERED, **other)) != ""


def test_both_implementations_of_the_bets_agree() -> None:
    random = np.random.RandomState(3)
    for design in (Design(-0.05, 0.0), Design(0.05, 0.1), Design(0.0, None), Design(-0.1, 0.0)):
        for spread in (0.02, 0.3, 1.0):
            signs = random.choice([-1.0, 0.0, 1.0], size=150, p=[0.1, 0.7, 0.2])
            observations = np.clip(signs * random.uniform(0, 1, size=150) ** (1 / spread), -1, 1)
            plain = log_capital(observations.tolist(), design)
            assert plain == pytest.approx(Capital(design, 1).extend(observations[None, :])[0], abs=1e-10)
            against = max(log_capital(observations.tolist(), design, -0.2))
            assert against == pytest.approx(highest_log_capital(observations, design, -0.2), abs=1e-10)


def test_it_needs_no_numpy() -> None:
    code = "import sys; sys.modules.update(numpy=None, scipy=None); import evalstats.claims"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
