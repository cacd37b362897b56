"""A gate policy is a strict value: one digest, no unknown field, and an order from loose to strict."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalstats.policy import GatePolicy, InvalidPolicy, People, Role, SuitePolicy, looser, stricter

DOMAIN = SuitePolicy(name="domain", role=Role.DOMAIN, margin=0.0, items=500)
ARC = SuitePolicy(name="arc_easy", role=Role.RETAINED, margin=0.05, items=1_500)
TEXTS = SuitePolicy(name="bits_per_byte", role=Role.RETAINED, margin=0.05, items=500)
POLICY = GatePolicy(suites=(DOMAIN, ARC, TEXTS))

suites = st.builds(
    SuitePolicy,
    name=st.sampled_from(["domain", "arc_easy", "bits_per_byte", "hellaswag"]),
    role=st.sampled_from(Role),
    margin=st.sampled_from([0.01, 0.02, 0.05, 0.1]),
    items=st.integers(2, 1_000_000),
)
policies = st.builds(
    GatePolicy,
    suites=st.lists(suites, min_size=1, max_size=4, unique_by=lambda suite: suite.name).map(tuple),
    alpha=st.sampled_from([0.01, 0.05, 0.2]),
    seed=st.integers(0, 2),
    people=st.builds(People, promote=st.integers(1, 3), override=st.integers(2, 3), loosen=st.integers(2, 3)),
)


def test_digest_is_pinned_and_ignores_the_order_of_suites() -> None:
    assert POLICY.digest == GatePolicy(suites=(TEXTS, DOMAIN, ARC)).digest
    assert POLICY.digest == "sha256:c6730e57a3e583a5c752da6e3a85fc9c6b575cc817529f17d17e7fc6f62ce90d"


@settings(max_examples=60, deadline=None)
@given(policies)
def test_policy_survives_json(policy: GatePolicy) -> None:
    read = GatePolicy.from_json(json.loads(json.dumps(policy.to_json())))
    assert read == policy
    assert read.digest == policy.digest


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (["schema"], "openledger.gate-policy.v3", "schema"),
        (["schema"], "openledger.gate-policy.v2", "suites[0].rule"),
        (["alpha"], 0, "alpha"),
        (["alpha"], 0.21, "alpha"),
        (["alpha"], float("nan"), "alpha"),
        (["alpha"], "0.05", "alpha"),
        (["seed"], -1, "seed"),
        (["seed"], True, "seed"),
        (["extra"], 1, "extra"),
        (["people"], [], "people"),
        (["people", "promote"], 0, "people.promote"),
        (["people", "override"], 1, "people.override"),
        (["people", "loosen"], 1, "people.loosen"),
        (["people", "other"], 1, "people.other"),
        (["suites"], [], "suites"),
        (["suites"], {}, "suites"),
        (["suites", 0], "domain", "suites[0]"),
        (["suites", 0, "name"], "", "suites[0].name"),
        (["suites", 0, "name"], "bits_per_byte", "suites[1].name"),
        (["suites", 0, "role"], "kept", "suites[0].role"),
        (["suites", 0, "margin"], 0, "suites[0].margin"),
        (["suites", 0, "margin"], 1, "suites[0].margin"),
        (["suites", 0, "margin"], None, "suites[0].margin"),
        (["suites", 2, "margin"], -0.1, "suites[2].margin"),
        (["suites", 0, "items"], 1, "suites[0].items"),
        (["suites", 0, "items"], 1_000_001, "suites[0].items"),
        (["suites", 0, "items"], 10.0, "suites[0].items"),
        (["suites", 0, "weight"], 10.0, "suites[0].weight"),
    ],
)
def test_an_impossible_policy_is_refused_and_the_field_is_named(
    path: list[Any], value: object, field: str
) -> None:
    changed: Any = POLICY.to_json()
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(InvalidPolicy) as refused:
        GatePolicy.from_json(changed)
    assert refused.value.field == field
    assert refused.value.expected in str(refused.value)


def test_a_missing_field_is_named() -> None:
    content = POLICY.to_json()
    del content["suites"][1]["items"]
    with pytest.raises(InvalidPolicy, match=r"suites\[1\]\.items") as refused:
        GatePolicy.from_json(content)
    assert refused.value.field == "suites[1].items"


def test_numbers_of_another_form_have_the_same_digest() -> None:
    content = POLICY.to_json()
    content["suites"][2]["margin"] = 0
    assert GatePolicy.from_json(content).digest == POLICY.digest
    content["suites"][2]["margin"] = -0.0
    assert GatePolicy.from_json(content).digest == POLICY.digest


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (replace(POLICY, suites=(DOMAIN, ARC)), "bits_per_byte is missing"),
        (replace(POLICY, suites=(DOMAIN, replace(ARC, margin=0.06), TEXTS)), "0.06 is above 0.05"),
        (replace(POLICY, suites=(DOMAIN, replace(ARC, role=Role.DOMAIN), TEXTS)), "role domain"),
        (replace(POLICY, alpha=0.1), "alpha 0.1"),
        (replace(POLICY, seed=1), "seed 1"),
    ],
)
def test_what_is_looser_is_named(candidate: GatePolicy, said: str) -> None:
    assert [said in sentence for sentence in looser(candidate, POLICY)] == [True]


def test_a_smaller_required_gain_and_fewer_people_are_looser() -> None:
    asks = replace(
        POLICY,
        suites=(replace(DOMAIN, margin=0.1), ARC, TEXTS),
        people=People(promote=2, override=3, loosen=3),
    )
    assert len(looser(POLICY, asks)) == 4
    assert looser(asks, POLICY) == []


def test_more_suites_other_items_and_smaller_margins_are_not_looser() -> None:
    more = SuitePolicy(name="hellaswag", role=Role.RETAINED, margin=0.5, items=2)
    strict = replace(POLICY, suites=(DOMAIN, replace(ARC, margin=0.01, items=10), TEXTS, more), alpha=0.01)
    assert looser(strict, POLICY) == []


@settings(max_examples=80, deadline=None)
@given(policies, policies, policies)
def test_at_least_as_strict_is_an_order(a: GatePolicy, b: GatePolicy, c: GatePolicy) -> None:
    assert looser(a, a) == []
    if not looser(a, b) and not looser(b, c):
        assert looser(a, c) == []


def test_an_intent_makes_margins_stricter() -> None:
    effective = stricter(POLICY, {"arc_easy": 0.02, "domain": 0.1})
    assert [(suite.name, suite.margin) for suite in effective.suites] == [
        ("arc_easy", 0.02),
        ("bits_per_byte", 0.05),
        ("domain", 0.1),
    ]
    assert looser(effective, POLICY) == []
    assert stricter(POLICY, {}) == POLICY


@pytest.mark.parametrize(
    "keep",
    [{"mmlu": 0.02}, {"arc_easy": 0.06}, {"arc_easy": 1.0}, {"arc_easy": 0.0}, {"arc_easy": float("nan")}],
)
def test_an_intent_that_is_looser_or_names_an_unknown_suite_is_refused(keep: dict[str, float]) -> None:
    with pytest.raises(InvalidPolicy) as refused:
        stricter(POLICY, keep)
    assert refused.value.field == f"keep[{next(iter(keep))}]"


def test_another_way_to_count_is_looser_and_another_digest() -> None:
    named = replace(ARC, rule="acc_bytes", version="sha256:" + "1" * 64)
    policy = GatePolicy(suites=(DOMAIN, named))
    for other, said in (
        (replace(named, rule="acc"), "scored by acc, not by acc_bytes"),
        (replace(named, rule=""), "scored by any rule, not by acc_bytes"),
        (replace(named, version="sha256:" + "2" * 64), "is not sha256:111"),
        (replace(named, version=""), "version any is not"),
    ):
        offered = GatePolicy(suites=(DOMAIN, other))
        (found,) = looser(offered, policy)
        assert said in found
        assert offered.digest != policy.digest
    assert looser(policy, GatePolicy(suites=(DOMAIN, ARC))) == [], "what is left open may be named"
    for field, value in (("rule", "acc_norm"), ("version", "3"), ("rule", None), ("version", 3)):
        with pytest.raises(InvalidPolicy) as refused:
            replace(ARC, **{field: value})
        assert refused.value.field == field


def test_an_intent_cannot_ask_for_less_gain() -> None:
    asks = replace(POLICY, suites=(replace(DOMAIN, margin=0.1), ARC, TEXTS))
    with pytest.raises(InvalidPolicy, match="at least the policy's required gain"):
        stricter(asks, {"domain": 0.05})


@settings(max_examples=80, deadline=None)
@given(policies, st.dictionaries(st.sampled_from(["domain", "arc_easy"]), st.floats(-0.5, 1.5)))
def test_the_effective_policy_is_never_looser(policy: GatePolicy, keep: dict[str, float]) -> None:
    try:
        effective = stricter(policy, keep)
    except InvalidPolicy:
        return
    assert looser(effective, policy) == []


def test_reading_a_policy_needs_no_numpy() -> None:
    program = "import sys, evalstats.policy; print({'numpy', 'scipy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
