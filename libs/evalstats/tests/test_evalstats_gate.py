"""What the gate promises, on figures of any kind."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalstats.comparison import Comparison, Method, compare
from evalstats.findings import may_advise
from evalstats.gate import GateVerdict, SuiteResult, decide
from evalstats.metric import Metric
from evalstats.paired import PairedValues
from evalstats.policy import GatePolicy, Role, SuitePolicy, Verdict
from evalstats.power import items_to_pass
from evalstats.sequential import sequential

METHOD, ALPHA = Method(resamples=1_000), 0.05


def _choices(improved: int, worsened: int, n: int) -> PairedValues:
    """Items that changed lie among the others as by chance, the same for every call with the same n."""
    place = np.random.RandomState(n).permutation(n)
    gains = np.zeros(n)
    gains[place[:improved]], gains[place[n - worsened :]] = 1.0, -1.0
    base = np.where(gains < 0, 1.0, 0.0)
    return PairedValues(Metric.ACCURACY, base, base + gains, np.arange(n))


def _texts(change: float, n: int = 100) -> PairedValues:
    random = np.random.RandomState(2)
    base = random.normal(1.1, 0.2, size=n)
    return PairedValues(Metric.BITS_PER_BYTE, base, base + change + random.normal(0, 0.01, n), np.arange(n))


def _result(
    pairs: PairedValues,
    margin: float,
    role: Role = Role.RETAINED,
    name: str = "suite",
    *,
    items: int = 2,
    retained: int = 1,
    advice: bool = False,
) -> SuiteResult:
    """A result whose suite has no more items than were scored."""
    suite = SuitePolicy(name=name, role=role, margin=margin, items=items)
    test = sequential(pairs, suite, alpha=ALPHA, retained=retained)
    comparison = compare(pairs, METHOD)
    advised = advice and may_advise(Verdict.INCONCLUSIVE, suite, comparison, test)
    return SuiteResult(
        suite=suite,
        metric=pairs.metric,
        available=10_000,
        comparison=comparison,
        test=test,
        items_needed=items_to_pass(pairs, suite, ALPHA, 1) if advised else None,
    )


def _decide(*results: SuiteResult) -> GateVerdict:
    """Under a policy of exactly these suites."""
    return decide(results, GatePolicy(suites=tuple(result.suite for result in results), alpha=ALPHA))


def _verdict(*results: SuiteResult) -> Verdict:
    return _decide(*results).verdict


def test_a_small_loss_on_many_items_passes_and_is_named() -> None:
    gate = _decide(_result(_choices(10, 70, 3_000), 0.05))
    assert gate.verdict is Verdict.PASS
    assert gate.regressed == ["suite"]
    assert "worse beyond chance" in gate.suites[0].finding


def test_a_large_loss_fails() -> None:
    assert _verdict(_result(_choices(4, 40, 100), 0.05)) is Verdict.FAILED


def test_no_change_on_few_items_is_inconclusive_and_says_how_many_would_do() -> None:
    result = _result(_choices(4, 4, 60), 0.05, advice=True)
    gate = _decide(result)
    assert gate.verdict is Verdict.INCONCLUSIVE
    assert f"within {result.items_needed:,} items in 80% of cases" in gate.suites[0].finding
    assert "60 items;" in gate.suites[0].finding


def test_advice_beyond_what_the_suite_has_says_so() -> None:
    result = replace(_result(_choices(4, 4, 60), 0.05, advice=True), available=60)
    assert _decide(result).suites[0].finding.endswith("in 80% of cases, the suite has 60")


@pytest.mark.parametrize(
    "pairs",
    [
        _choices(4, 12, 100),  # the measured loss is beyond the margin
        _choices(0, 12, 400),  # within the margin, but beyond chance
    ],
)
def test_no_number_of_items_stands_beside_a_loss_that_was_measured(pairs: PairedValues) -> None:
    result = _result(pairs, 0.05, advice=True)
    gate = _decide(result)
    assert gate.verdict is Verdict.INCONCLUSIVE
    assert result.items_needed is None
    assert "of cases" not in gate.suites[0].finding


def test_a_loss_beyond_chance_and_margin_by_the_estimate_alone_is_not_failed() -> None:
    result = _result(_choices(8, 19, 100), 0.05)
    assert result.comparison.gain < -0.05
    assert result.comparison.regression_p < 0.05
    gate = _decide(result)
    assert gate.verdict is Verdict.INCONCLUSIVE
    assert "worse beyond chance, and not shown to be within the margin" in gate.suites[0].finding


def test_a_failure_needs_more_evidence_the_more_suites_could_fail() -> None:
    pairs = _choices(3, 24, 120)
    alone, shared = _result(pairs, 0.05), _result(pairs, 0.05, retained=20)
    assert shared.test.fail_threshold > alone.test.fail_threshold
    assert (alone.verdict, shared.verdict) == (Verdict.FAILED, Verdict.INCONCLUSIVE)


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
    gate = _decide(worse, kept)
    assert gate.verdict is Verdict.INCONCLUSIVE
    assert "no gain shown" in gate.suites[0].finding


def test_one_lost_suite_fails_the_model_whatever_the_others_say() -> None:
    good = [_result(_texts(0.0), 0.05, name=f"kept-{i}") for i in range(5)]
    assert _verdict(*good) is Verdict.PASS
    assert _verdict(*good, _result(_texts(0.5), 0.05, name="lost")) is Verdict.FAILED


def test_every_proper_subset_of_the_suites_of_a_policy_is_incomplete() -> None:
    results = [
        _result(_texts(0.0), 0.05, name="kept"),
        _result(_choices(4, 4, 1_000), 0.05, name="kept-too"),
        _result(_choices(40, 5, 100), 0.0, Role.DOMAIN, "domain"),
    ]
    policy = GatePolicy(suites=tuple(result.suite for result in results))
    assert decide(results, policy).verdict is Verdict.PASS
    for size in range(3):
        for subset in combinations(results, size):
            gate = decide(subset, policy)
            assert gate.verdict is Verdict.INCOMPLETE
            assert len(gate.missing) == 3 - size


def test_a_failed_suite_in_an_incomplete_report_is_failed() -> None:
    lost, kept = _result(_texts(0.5), 0.05, name="lost"), _result(_texts(0.0), 0.05, name="kept")
    assert decide([lost], GatePolicy(suites=(lost.suite, kept.suite))).verdict is Verdict.FAILED


def test_items_left_to_ask_make_a_suite_incomplete_until_its_verdict() -> None:
    few, many = _choices(2, 2, 40), _choices(10, 10, 900)
    assert _verdict(_result(few, 0.05, items=41)) is Verdict.INCOMPLETE
    assert "41 items may be asked" in _decide(_result(few, 0.05, items=41)).suites[0].finding
    assert _verdict(_result(few, 0.05, items=40)) is Verdict.INCONCLUSIVE
    assert _verdict(replace(_result(few, 0.05, items=41), available=40)) is Verdict.INCONCLUSIVE
    assert _verdict(_result(many, 0.05, items=5_000)) is Verdict.PASS


def test_a_suite_that_the_policy_does_not_name_is_reported_and_decides_nothing() -> None:
    kept, other = _result(_texts(0.0), 0.05, name="kept"), _result(_texts(0.5), 0.05, name="other")
    gate = decide([kept, other], GatePolicy(suites=(kept.suite,)))
    assert gate.verdict is Verdict.PASS
    assert [(suite.verdict, suite.counted) for suite in gate.suites] == [
        (Verdict.PASS, True),
        (Verdict.FAILED, False),
    ]


def test_a_suite_tested_by_another_margin_or_twice_is_refused() -> None:
    result = _result(_texts(0.0), 0.05)
    policy = GatePolicy(suites=(replace(result.suite, margin=0.01),))
    with pytest.raises(ValueError, match=r"margin=0\.05.*margin=0\.01"):
        decide([result], policy)
    with pytest.raises(ValueError, match="twice"):
        decide([result, result], GatePolicy(suites=(result.suite,)))


def test_holm_raises_the_bar_with_the_number_of_suites() -> None:
    borderline = _result(_choices(0, 6, 300), 0.2)
    assert 0.05 / 4 < borderline.test.worse_p < 0.05
    assert _decide(borderline).regressed == ["suite"]
    others = [_result(_choices(5, 5, 100), 0.2, name=f"other-{i}") for i in range(3)]
    assert _decide(borderline, *others).regressed == []


counts = st.tuples(st.integers(0, 40), st.integers(0, 40))


@settings(max_examples=20, deadline=None)
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
    c: Comparison = compare(_choices(*changed, 100), METHOD)
    assert c.interval.lower <= c.lower_bound <= c.gain <= c.upper_bound <= c.interval.upper


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize(
    "tuned",
    [
        np.zeros(40),
        np.ones(40),
        np.array([1.0] + [0.0] * 39),  # all the spread in one item
        np.array([1.0, 0.0]),
        np.array([1.0]),
    ],
)
@pytest.mark.parametrize("cluster_size", [1, 3, 40])
def test_constant_and_nearly_constant_differences_have_finite_bounds(
    metric: Metric, tuned: np.ndarray, cluster_size: int
) -> None:
    clusters = np.arange(len(tuned)) // cluster_size
    comparison = compare(PairedValues(metric, np.zeros(len(tuned)), tuned, clusters), METHOD)
    bounds = [
        comparison.lower_bound,
        comparison.upper_bound,
        comparison.interval.lower,
        comparison.interval.upper,
    ]
    assert np.abs(bounds).max() < 10
    assert np.isfinite([comparison.standard_error, comparison.regression_p, comparison.design_effect]).all()


noise = st.one_of(st.floats(-10, 10), st.floats(-1e-12, 1e-12), st.just(0.0))


@settings(max_examples=40, deadline=None)
@given(st.lists(noise, min_size=1, max_size=40), st.integers(1, 5))
def test_every_figure_at_a_fixed_number_of_items_is_finite(values: list[float], cluster_size: int) -> None:
    tuned = np.array(values)
    pairs = PairedValues(
        Metric.BITS_PER_BYTE, np.ones(len(tuned)), tuned, np.arange(len(tuned)) // cluster_size
    )
    c = compare(pairs, METHOD)
    reach = 100 * max(1.0, float(np.abs(tuned).max()))
    for level in (c.base, c.tuned):
        assert max(abs(level.interval.lower), abs(level.interval.upper)) < reach
    assert max(abs(c.lower_bound), abs(c.upper_bound), abs(c.interval.lower), abs(c.interval.upper)) < reach


def test_verdicts_ignore_the_order_of_suites() -> None:
    a, b = _result(_choices(2, 30, 200), 0.05, name="a"), _result(_texts(0.2), 0.05, name="b")
    assert _decide(a, b).regressed == _decide(b, a).regressed[::-1]
    assert _verdict(a, b) is _verdict(b, a)
