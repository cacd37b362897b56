"""A report can be computed again by anyone, and tampering shows where."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

from evalstats.comparison import Method
from evalstats.gate import Role
from evalstats.outcomes import InvalidOutcomes, ItemOutcome, Outcomes, pair
from evalstats.paired import Metric
from evalstats.report import Inputs, InvalidReport, SuiteRecord, build, outcome_set
from evalstats.rules import Rule, value
from evalstats.verification import check_items, check_report

BASE, ADAPTER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
OPTIONS = [" yes", " certainly not"]


def _suite(name: str, rule: Rule, role: Role, margin: float) -> SuiteRecord:
    return SuiteRecord(name, role, rule, "1", f"suite-{name}", f"items-{name}", f"template-{name}", margin)


SUITES = (
    _suite("domain", Rule.CHOICE_SUM, Role.DOMAIN, 0.0),
    _suite("texts", Rule.BITS_PER_BYTE, Role.RETAINED, 0.05),
)


def _items(suite: SuiteRecord, n: int) -> dict[str, Any]:
    options = OPTIONS if suite.rule.metric.binary else ["a text of twenty-six bytes"]
    entries = [{"id": f"{i}", "cluster": f"{i // 2}", "options": options, "gold": 0} for i in range(n)]
    return {"schema": "openledger.evaluation.items.v1", "items": entries}


def _outcomes(suite: SuiteRecord, adapter: str | None, n: int, shift: float, seed: int) -> Outcomes:
    random = np.random.RandomState(seed)
    items = []
    for entry in _items(suite, n)["items"]:
        scores = [float(x) for x in random.normal(-5, 1, size=len(entry["options"]))]
        scores[0] += shift
        result = value(suite.rule, scores, entry["options"], entry["gold"])
        items.append(ItemOutcome(entry["id"], entry["cluster"], result, tuple(scores)))
    return Outcomes(suite.digest, BASE, adapter, "float32", tuple(items))


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Outcomes, Outcomes]]:
    return [
        (_outcomes(suite, None, 60, 0.0, seed), _outcomes(suite, ADAPTER, 60, 2.0, 10 + seed))
        for seed, suite in enumerate(SUITES)
    ]


@pytest.fixture(scope="module")
def report(pairs: list[tuple[Outcomes, Outcomes]]) -> dict[str, Any]:
    method, compute, packages = Method(resamples=1_000), {"dtype": "float32"}, {"torch": "2"}
    return build(Inputs(BASE, ADAPTER, "sha256:" + "c" * 64, SUITES, method, compute, packages), pairs)


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
    assert [d.path for d in check_items(report, outcomes, items)] == ["$.domain.tuned.7.value"]
    assert check_items(report, outcome_set(pairs), items) == []


def test_outcomes_of_other_models_make_no_report(pairs: list[tuple[Outcomes, Outcomes]]) -> None:
    inputs = Inputs(BASE, "sha256:" + "d" * 64, "sha256:" + "c" * 64, SUITES, Method(), {}, {})
    with pytest.raises(InvalidReport, match="other models"):
        build(inputs, pairs)


def test_outcomes_on_other_items_cannot_be_paired(pairs: list[tuple[Outcomes, Outcomes]]) -> None:
    base, tuned = pairs[0]
    fewer = Outcomes(tuned.suite_digest, BASE, ADAPTER, "float32", tuned.items[:-1])
    with pytest.raises(InvalidOutcomes, match="items"):
        pair(Metric.ACCURACY, base, fewer)


def test_outcomes_of_different_number_types_cannot_be_paired(pairs: list[tuple[Outcomes, Outcomes]]) -> None:
    base, tuned = pairs[0]
    with pytest.raises(InvalidOutcomes, match="compute"):
        pair(Metric.ACCURACY, base, Outcomes(tuned.suite_digest, BASE, ADAPTER, "bfloat16", tuned.items))


@pytest.mark.parametrize("broken", [{}, {"schema": "x"}, {"schema": "openledger.evaluation.report.v1"}])
def test_a_malformed_report_is_refused_with_a_reason(broken: dict[str, Any]) -> None:
    with pytest.raises(InvalidReport, match="schema"):
        check_report(broken, {})


def test_rules_choose_as_documented() -> None:
    # " certainly not" is longer: less likely as a whole, more likely per byte.
    assert value(Rule.CHOICE_SUM, [-4.0, -6.0], OPTIONS, 0) == 1.0
    assert value(Rule.CHOICE_PER_BYTE, [-4.0, -6.0], OPTIONS, 0) == 0.0
    assert value(Rule.CHOICE_SUM, [-4.0, -4.0], OPTIONS, 1) == 0.0  # a tie goes to the first
    assert value(Rule.BITS_PER_BYTE, [-8 * np.log(2)], ["four"], 0) == pytest.approx(2.0)
    # Bytes, not characters.
    assert value(Rule.BITS_PER_BYTE, [-8 * np.log(2)], ["\u00e9\u00e9"], 0) == pytest.approx(2.0)
