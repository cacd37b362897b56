"""A report can be computed again by anyone, and tampering shows where."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evalstats.comparison import Method
from evalstats.metric import Metric
from evalstats.order import item_order
from evalstats.outcomes import InvalidOutcomes, ItemOutcome, Outcomes
from evalstats.paired import pair
from evalstats.policy import GatePolicy, Role, SuitePolicy, Verdict
from evalstats.records import suite_digest
from evalstats.report import Inputs, InvalidReport, SuiteRecord, build, judge, outcome_set
from evalstats.rules import Rule, value
from evalstats.verification import check_items, check_policy, check_report

BASE, ADAPTER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
OPTIONS = [" yes", " certainly not"]


def _suite(name: str, rule: Rule, role: Role, margin: float) -> SuiteRecord:
    digests = {"items_digest": f"items-{name}", "template_digest": f"template-{name}"}
    return SuiteRecord(
        name=name,
        role=role,
        rule=rule,
        version="1",
        digest=suite_digest(name=name, rule=rule, version="1", **digests),
        **digests,
        margin=margin,
        available=60,
    )


SUITES = (
    _suite("domain", Rule.CHOICE_SUM, Role.DOMAIN, 0.0),
    _suite("texts", Rule.BITS_PER_BYTE, Role.RETAINED, 0.05),
)
POLICY = GatePolicy(
    suites=(
        SuitePolicy(name="domain", role=Role.DOMAIN, margin=0.0, items=60),
        SuitePolicy(name="texts", role=Role.RETAINED, margin=0.05, items=60),
    )
)


def _items(suite: SuiteRecord, n: int) -> dict[str, Any]:
    options = OPTIONS if suite.rule.metric.binary else ["a text of twenty-six bytes"]
    entries = [{"id": f"{i}", "cluster": f"{i // 2}", "options": options, "gold": 0} for i in range(n)]
    ordered = item_order([(str(entry["id"]), str(entry["cluster"])) for entry in entries], POLICY.seed)
    return {"schema": "openledger.evaluation.items.v1", "items": [entries[place] for place in ordered]}


def _outcomes(suite: SuiteRecord, adapter: str | None, n: int, shift: float, seed: int) -> Outcomes:
    random = np.random.RandomState(seed)
    items = []
    for entry in _items(suite, n)["items"]:
        scores = [float(x) for x in random.normal(-5, 1, size=len(entry["options"]))]
        scores[0] += shift
        result = value(suite.rule, scores, entry["options"], entry["gold"])
        items.append(ItemOutcome(entry["id"], entry["cluster"], result, tuple(scores)))
    return Outcomes(
        suite_digest=suite.digest,
        base_digest=BASE,
        adapter_digest=adapter,
        compute="float32",
        items=tuple(items),
    )


INPUTS = Inputs(
    base_digest=BASE,
    adapter_digest=ADAPTER,
    outcomes_digest="sha256:" + "c" * 64,
    suites=SUITES,
    policy=POLICY,
    policy_source="sha256:" + "e" * 64,
    method=Method(resamples=1_000),
    compute={"dtype": "float32"},
    packages={"torch": "2"},
)


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Outcomes, Outcomes]]:
    return [
        (_outcomes(suite, None, 60, 0.0, seed), _outcomes(suite, ADAPTER, 60, 2.0, 10 + seed))
        for seed, suite in enumerate(SUITES)
    ]


@pytest.fixture(scope="module")
def report(pairs: list[tuple[Outcomes, Outcomes]]) -> dict[str, Any]:
    return build(INPUTS, pairs)


def _as_read(value: object) -> Any:
    return json.loads(json.dumps(value))


def test_report_and_outcomes_survive_json_and_recompute_to_the_same(
    report: dict[str, Any], pairs: list[tuple[Outcomes, Outcomes]]
) -> None:
    assert check_report(_as_read(report), _as_read(outcome_set(pairs))) == []


def test_report_has_no_number_that_json_lacks(report: dict[str, Any]) -> None:
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize(
    ("path", "forged"),
    [
        (["suites", 0, "statistics", "tuned", "value"], 0.999),
        (["suites", 1, "statistics", "gain_lower_bound"], -0.01),
        (["suites", 1, "verdict"], "pass-anyway"),
        (["gate", "verdict"], "failed"),
        (["gate", "regressed"], ["domain"]),
        (["gate", "missing"], ["hellaswag"]),
        (["policy_digest"], "sha256:" + "f" * 64),
        (["suites", 1, "test", "decided_after"], 3),
        (["suites", 1, "test", "pass", "log_capital"], 99.0),
        (["suites", 1, "test", "gain_lower_bound"], 0.2),
        (["suites", 0, "counted"], False),
    ],
)
def test_a_forged_figure_is_named(
    report: dict[str, Any], pairs: list[tuple[Outcomes, Outcomes]], path: list[Any], forged: object
) -> None:
    tampered = copy.deepcopy(report)
    place: Any = tampered
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = forged
    found = [difference.path for difference in check_report(tampered, outcome_set(pairs))]
    expected = "$" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    assert [place for place in found if place.startswith(expected)]


def test_a_flipped_outcome_is_found_in_the_statistics_and_by_the_items(
    report: dict[str, Any], pairs: list[tuple[Outcomes, Outcomes]]
) -> None:
    outcomes = _as_read(outcome_set(pairs))
    entry = outcomes["suites"][0]["tuned"]["items"][7]
    entry["value"] = 1.0 - entry["value"]
    assert check_report(report, outcomes)
    items = {suite.items_digest: _items(suite, 60) for suite in SUITES}
    flipped = entry["item"]
    assert [d.path for d in check_items(report, outcomes, items)] == [f"$.domain.tuned.{flipped}.value"]
    assert check_items(report, outcome_set(pairs), items) == []


def test_outcomes_of_other_models_make_no_report(pairs: list[tuple[Outcomes, Outcomes]]) -> None:
    with pytest.raises(InvalidReport, match="other models"):
        build(replace(INPUTS, adapter_digest="sha256:" + "d" * 64), pairs)


def _changed(outcomes: Outcomes, items: tuple[ItemOutcome, ...]) -> Outcomes:
    return replace(outcomes, items=items)


def test_items_in_another_order_make_no_report(pairs: list[tuple[Outcomes, Outcomes]]) -> None:
    base, tuned = pairs[0]
    swapped = [_changed(each, (each.items[1], each.items[0], *each.items[2:])) for each in (base, tuned)]
    with pytest.raises(InvalidReport, match=r"domain: item 0 .*order of seed 0"):
        build(INPUTS, [(swapped[0], swapped[1]), pairs[1]])


def test_a_beginning_of_the_order_makes_an_incomplete_report(
    pairs: list[tuple[Outcomes, Outcomes]],
) -> None:
    base, tuned = pairs[1]
    short = [_changed(each, each.items[:8]) for each in (base, tuned)]
    report = build(INPUTS, [pairs[0], (short[0], short[1])])
    assert report["suites"][1]["verdict"] == "incomplete"
    assert report["gate"]["verdict"] == "incomplete"


def test_a_report_without_a_suite_of_the_policy_is_incomplete(
    pairs: list[tuple[Outcomes, Outcomes]],
) -> None:
    report = build(replace(INPUTS, suites=SUITES[:1]), pairs[:1])
    assert report["suites"][0]["verdict"] == "pass"
    assert (report["gate"]["verdict"], report["gate"]["missing"]) == ("incomplete", ["texts"])
    assert "suite texts was not measured" in check_policy(report, POLICY)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (replace(SUITES[1], margin=1.0), "within 1, the policy says retained within 0.05"),
        (replace(SUITES[1], role=Role.DOMAIN), "the policy says retained"),
        (replace(SUITES[1], available=59), "has 59 items"),
    ],
)
def test_a_suite_that_is_not_as_the_policy_says_makes_no_report(
    pairs: list[tuple[Outcomes, Outcomes]], record: SuiteRecord, said: str
) -> None:
    with pytest.raises(InvalidReport, match=said):
        build(replace(INPUTS, suites=(SUITES[0], record)), pairs)


def test_a_report_that_passed_meets_its_policy_and_every_looser_one(report: dict[str, Any]) -> None:
    assert report["gate"]["verdict"] == "pass"
    assert check_policy(report, POLICY) == []
    wider = replace(POLICY, suites=(POLICY.suites[0], replace(POLICY.suites[1], margin=0.5)))
    assert check_policy(report, wider) == []
    assert check_policy(report, replace(POLICY, suites=POLICY.suites[:1])) == []


def test_what_a_report_does_not_meet_is_named(report: dict[str, Any]) -> None:
    extra = SuitePolicy(name="hellaswag", role=Role.RETAINED, margin=0.05, items=100)
    strict = replace(
        POLICY, suites=(POLICY.suites[0], replace(POLICY.suites[1], margin=0.01), extra), alpha=0.01, seed=4
    )
    assert check_policy(report, strict) == [
        "suite hellaswag is missing",
        "suite texts: margin 0.05 is above 0.01",
        "alpha 0.05 is above 0.01",
        "seed 0 is not 4: it draws other items",
    ]
    failed = copy.deepcopy(report)
    failed["suites"][1].update(verdict="failed", finding="texts: lost")
    assert check_policy(failed, POLICY) == ["suite texts did not pass: texts: lost"]
    failed = copy.deepcopy(report)
    failed["gate"]["verdict"] = "incomplete"
    assert check_policy(failed, POLICY) == ["the report's verdict is 'incomplete', not 'pass'"]
    renamed = {**report, "policy_digest": "sha256:other"}
    assert "names policy sha256:other" in check_policy(renamed, POLICY)[0]


def test_a_policy_of_your_own_judges_the_same_outcomes(
    report: dict[str, Any], pairs: list[tuple[Outcomes, Outcomes]]
) -> None:
    outcomes = outcome_set(pairs)
    assert judge(report, outcomes, POLICY).verdict is Verdict.PASS
    asks = replace(POLICY, suites=(replace(POLICY.suites[0], margin=0.9), POLICY.suites[1]))
    assert judge(report, outcomes, asks).verdict is Verdict.INCONCLUSIVE
    extra = SuitePolicy(name="hellaswag", role=Role.RETAINED, margin=0.05, items=100)
    more = replace(POLICY, suites=(*POLICY.suites, extra))
    assert judge(report, outcomes, more).missing == ("hellaswag",)
    with pytest.raises(InvalidReport, match="order of seed 1"):
        judge(report, outcomes, replace(POLICY, seed=1))


def test_outcomes_on_other_items_cannot_be_paired(pairs: list[tuple[Outcomes, Outcomes]]) -> None:
    base, tuned = pairs[0]
    fewer = Outcomes(
        suite_digest=tuned.suite_digest,
        base_digest=BASE,
        adapter_digest=ADAPTER,
        compute="float32",
        items=tuned.items[:-1],
    )
    with pytest.raises(InvalidOutcomes, match="items"):
        pair(Metric.ACCURACY, base, fewer)


def test_outcomes_of_different_number_types_cannot_be_paired(pairs: list[tuple[Outcomes, Outcomes]]) -> None:
    base, tuned = pairs[0]
    with pytest.raises(InvalidOutcomes, match="compute"):
        pair(
            Metric.ACCURACY,
            base,
            Outcomes(
                suite_digest=tuned.suite_digest,
                base_digest=BASE,
                adapter_digest=ADAPTER,
                compute="bfloat16",
                items=tuned.items,
            ),
        )


@pytest.mark.parametrize("broken", [{}, {"schema": "x"}, {"schema": "openledger.evaluation.report.v2"}])
def test_a_malformed_report_is_refused_with_a_reason(broken: dict[str, Any]) -> None:
    with pytest.raises(InvalidReport, match="schema"):
        check_report(broken, {})


def test_rules_choose_as_documented() -> None:
    # " certainly not" is longer: less likely as a whole, more likely per byte.
    assert value(Rule.CHOICE_SUM, [-4.0, -6.0], OPTIONS, 0) == 1.0
    assert value(Rule.CHOICE_PER_BYTE, [-4.0, -6.0], OPTIONS, 0) == 0.0
    assert value(Rule.CHOICE_SUM, [-4.0, -4.0], OPTIONS, 1) == 0.0  # a tie goes to the first
    assert value(Rule.BITS_PER_BYTE, [-8 * np.log(2)], ["four"], 0) == pytest.approx(2.0)
    assert value(Rule.ACC, [-4.0, -6.0], OPTIONS, 0) == 1.0
    # lm-eval joins question and option by a blank, which is no part of the option: 1 and 3 bytes are counted, not 2 and 4.
    assert value(Rule.CHOICE_PER_BYTE, [-4.0, -9.0], [" a", " bcd"], 0) == 1.0
    assert value(Rule.ACC_BYTES, [-4.0, -9.0], [" a", " bcd"], 0) == 0.0
    # Bytes, not characters.
    assert value(Rule.BITS_PER_BYTE, [-8 * np.log(2)], ["\u00e9\u00e9"], 0) == pytest.approx(2.0)
