"""What the gate promises, on figures of any kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalstats.comparison import Comparison, Method, compare
from evalstats.gate import Role, SuiteResult, Verdict, decide
from evalstats.paired import Metric, PairedValues

METHOD = Method(resamples=1_000)
ORDER = {Verdict.FAILED: 0, Verdict.INCONCLUSIVE: 1, Verdict.PASS: 2}


def _choices(improved: int, worsened: int, n: int) -> PairedValues:
    base = np.array([0.0] * improved + [1.0] * worsened + [1.0] * (n - improved - worsened))
    tuned = np.array([1.0] * improved + [0.0] * worsened + [1.0] * (n - improved - worsened))
    return PairedValues(Metric.ACCURACY, base, tuned, np.arange(n))


def _result(
    pairs: PairedValues, margin: float, role: Role = Role.RETAINED, name: str = "suite"
) -> SuiteResult:
    return SuiteResult(name, role, pairs.metric, margin, compare(pairs, margin, METHOD))


def _verdict(*results: SuiteResult) -> Verdict:
    return decide(results, METHOD.alpha).verdict


def _texts(change: float, n: int = 60) -> PairedValues:
    random = np.random.RandomState(2)
    base = random.normal(1.1, 0.2, size=n)
    return PairedValues(Metric.BITS_PER_BYTE, base, base + change + random.normal(0, 0.01, n), np.arange(n))


def test_a_small_loss_on_many_items_passes_and_is_named() -> None:
    gate = decide([_result(_choices(10, 40, 2_000), 0.05)], METHOD.alpha)
    assert gate.verdict is Verdict.PASS
    assert gate.regressed == ["suite"]
    assert "worse beyond chance" in gate.suites[0].finding


def test_a_large_loss_fails() -> None:
    assert _verdict(_result(_choices(4, 40, 100), 0.05)) is Verdict.FAILED


def test_no_change_on_few_items_is_inconclusive_and_says_how_many_would_do() -> None:
    result = _result(_choices(4, 4, 40), 0.05)
    gate = decide([result], METHOD.alpha)
    assert gate.verdict is Verdict.INCONCLUSIVE
    assert f"about {result.comparison.items_needed} items" in gate.suites[0].finding


def test_regression_beyond_chance_and_margin_fails_although_the_upper_bound_does_not() -> None:
    result = _result(_choices(8, 19, 100), 0.05)
    assert result.comparison.upper_bound > -0.05
    assert result.comparison.regression_p < 0.05
    assert _verdict(result) is Verdict.FAILED


def test_more_bits_per_byte_are_worse() -> None:
    worse = _result(_texts(+0.2), 0.05)
    assert worse.comparison.gain == pytest.approx(-0.2, abs=0.01)
    assert _verdict(worse) is Verdict.FAILED
    assert _verdict(_result(_texts(+0.01), 0.05)) is Verdict.PASS


def test_domain_suite_without_a_shown_gain_keeps_the_model_from_passing_but_does_not_fail_it() -> None:
    kept = _result(_texts(0.0), 0.05, name="bits_per_byte")
    learned = _result(_choices(40, 5, 100), 0.0, Role.DOMAIN, "domain")
    idle = _result(_choices(5, 5, 100), 0.0, Role.DOMAIN, "domain")
    worse = _result(_choices(5, 40, 100), 0.0, Role.DOMAIN, "domain")
    assert _verdict(learned, kept) is Verdict.PASS
    assert _verdict(idle, kept) is Verdict.INCONCLUSIVE
    gate = decide([worse, kept], METHOD.alpha)
    assert gate.verdict is Verdict.INCONCLUSIVE
    assert "no gain" in gate.suites[0].finding


def test_one_lost_suite_fails_the_model_whatever_the_others_say() -> None:
    good = [_result(_texts(0.0), 0.05, name=f"kept-{i}") for i in range(5)]
    assert _verdict(*good) is Verdict.PASS
    assert _verdict(*good, _result(_texts(0.5), 0.05, name="lost")) is Verdict.FAILED


def test_holm_raises_the_bar_with_the_number_of_suites() -> None:
    borderline = _result(_choices(2, 9, 100), 0.2)
    assert decide([borderline], METHOD.alpha).regressed == ["suite"]
    others = [_result(_choices(5, 5, 100), 0.2, name=f"other-{i}") for i in range(3)]
    assert decide([borderline, *others], METHOD.alpha).regressed == []


def test_a_gate_without_suites_is_refused() -> None:
    with pytest.raises(ValueError, match="without suites"):
        decide([], METHOD.alpha)


counts = st.tuples(st.integers(0, 40), st.integers(0, 40))


@settings(max_examples=60, deadline=None)
@given(counts, st.floats(0.0, 0.5), st.floats(0.0, 0.5))
def test_a_wider_margin_never_worsens_the_verdict(changed: tuple[int, int], one: float, other: float) -> None:
    pairs = _choices(*changed, 100)
    narrow, wide = sorted((one, other))
    assert ORDER[_verdict(_result(pairs, narrow))] <= ORDER[_verdict(_result(pairs, wide))]


@settings(max_examples=60, deadline=None)
@given(counts, st.floats(0.01, 0.3))
def test_one_more_worsened_item_never_improves_the_verdict(changed: tuple[int, int], margin: float) -> None:
    improved, worsened = changed
    before = _verdict(_result(_choices(improved, worsened, 100), margin))
    after = _verdict(_result(_choices(improved, worsened + 1, 100), margin))
    assert ORDER[after] <= ORDER[before]


@settings(max_examples=60, deadline=None)
@given(st.lists(counts, min_size=1, max_size=4), counts)
def test_one_more_suite_never_turns_a_model_into_a_pass(
    suites: list[tuple[int, int]], added: tuple[int, int]
) -> None:
    results = [_result(_choices(*changed, 100), 0.1, name=str(i)) for i, changed in enumerate(suites)]
    if _verdict(*results) is not Verdict.PASS:
        assert _verdict(*results, _result(_choices(*added, 100), 0.1, name="more")) is not Verdict.PASS


@settings(max_examples=40, deadline=None)
@given(counts)
def test_bounds_enclose_the_gain(changed: tuple[int, int]) -> None:
    c: Comparison = _result(_choices(*changed, 100), 0.05).comparison
    assert c.interval.lower <= c.lower_bound <= c.gain <= c.upper_bound <= c.interval.upper


def test_verdicts_ignore_the_order_of_suites() -> None:
    a, b = _result(_choices(2, 9, 100), 0.05, name="a"), _result(_texts(0.2), 0.05, name="b")
    assert decide([a, b], 0.05).regressed == decide([b, a], 0.05).regressed[::-1]
    assert _verdict(a, b) is _verdict(b, a) is _verdict(a, replace(b, name="c"))
