"""The sequential test keeps its errors at any look, and its verdict is the same whoever looks when."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from evalstats.bets import Design, designs, gain_bound
from evalstats.betting import Capital, highest_rejected
from evalstats.metric import Metric
from evalstats.paired import PairedValues
from evalstats.policy import GatePolicy, Role, SuitePolicy, Verdict
from evalstats.power import POWER, Draw, choices, first_reached, items_for_discordance
from evalstats.sequential import Progress, Sequential, sequential, verdict_so_far

Floats = NDArray[np.float64]
ALPHA, MARGIN = 0.05, 0.05
KEPT = SuitePolicy(name="kept", role=Role.RETAINED, margin=MARGIN, items=1_000)
LEARNED = SuitePolicy(name="learned", role=Role.DOMAIN, margin=0.0, items=1_000)
PASSING, FAILING = designs(KEPT, 1.0)


def _gains(seed: int, sequences: int, items: int, *, differ: float, gain: float) -> Floats:
    """Gains of accuracy, [sequences, items]: a share `differ` is -1 or 1, the mean is `gain`."""
    draw = choices(np.full(sequences, differ), gain)
    return draw(np.random.RandomState(seed), np.arange(sequences), items)


def _items(
    design: Design, draw: Draw, threshold: float, *, seed: int, most: int, sequences: int
) -> NDArray[np.int64]:
    """After how many items each drawn sequence reaches 1 / threshold; most + 1 for never."""
    return first_reached(
        draw, design, math.log(threshold), random=np.random.RandomState(seed), sequences=sequences, most=most
    )


def _ever(
    design: Design, draw: Draw, threshold: float, *, seed: int, most: int, sequences: int
) -> NDArray[np.bool_]:
    return _items(design, draw, threshold, seed=seed, most=most, sequences=sequences) <= most


def _at_most(rate: float, limit: float, runs: int) -> bool:
    """Within three standard errors of the simulation itself."""
    return rate <= limit + 3 * math.sqrt(limit * (1 - limit) / runs)


def _pairs(gains: Floats, clusters: NDArray[np.int64] | None = None) -> PairedValues:
    base = np.where(gains < 0, 1.0, 0.0)
    return PairedValues(
        Metric.ACCURACY, base, base + gains, np.arange(len(gains)) if clusters is None else clusters
    )


def _texts(gains: Floats) -> PairedValues:
    return PairedValues(Metric.BITS_PER_BYTE, np.full(len(gains), 1.0), 1.0 - gains, np.arange(len(gains)))


def _test(pairs: PairedValues, suite: SuitePolicy = KEPT) -> Sequential:
    return sequential(pairs, suite, alpha=ALPHA, retained=2)


RUNS = 3_000


@pytest.mark.parametrize("differ", [0.05, 0.12, 0.3])
def test_a_loss_of_the_margin_passes_at_most_5_in_100_times_at_any_look(differ: float) -> None:
    draw = choices(np.full(RUNS, differ), -MARGIN)
    passed = _ever(PASSING, draw, 1 / ALPHA, seed=1, most=600, sequences=RUNS)
    assert _at_most(passed.mean(), ALPHA, RUNS)


def test_a_loss_of_the_margin_in_few_large_changes_of_texts_passes_at_most_5_in_100_times() -> None:
    # One text in ten loses half a bit: the mean is the margin, and the spread is all in rare items.
    design, _ = designs(KEPT, gain_bound(Metric.BITS_PER_BYTE, MARGIN))
    draw = choices(np.full(RUNS, 0.1), -0.1)
    passed = _ever(design, draw, 1 / ALPHA, seed=2, most=600, sequences=RUNS)
    assert _at_most(passed.mean(), ALPHA, RUNS)


@pytest.mark.parametrize("suites", [1, 3])
def test_losses_of_the_margin_on_every_suite_fail_at_most_5_in_100_times_at_any_look(suites: int) -> None:
    draw = choices(np.full(RUNS, 0.12), MARGIN)  # of losses: the gain with the opposite sign
    failed = np.zeros(RUNS, dtype=bool)
    for suite in range(suites):
        failed |= _ever(FAILING, draw, suites / ALPHA, seed=10 + suite, most=400, sequences=RUNS)
    assert _at_most(failed.mean(), ALPHA, RUNS)


def test_a_domain_suite_without_gain_passes_at_most_5_in_100_times_at_any_look() -> None:
    design, _ = designs(LEARNED, 1.0)
    passed = _ever(design, choices(np.full(RUNS, 0.4)), 1 / ALPHA, seed=3, most=600, sequences=RUNS)
    assert _at_most(passed.mean(), ALPHA, RUNS)


def test_anytime_bounds_hold_together_at_the_last_of_many_looks() -> None:
    below = above = 0
    runs = 120
    for gains in _gains(4, runs, 150, differ=0.3, gain=-0.1):
        result = _test(_pairs(gains))
        below += result.lower_bound > -0.1
        above += result.upper_bound < -0.1
    assert _at_most(below / runs, ALPHA, runs)
    assert _at_most(above / runs, ALPHA, runs)


@pytest.mark.parametrize(("differ", "median"), [(0.04, 124), (0.08, 192), (0.12, 267)])
def test_a_model_without_loss_passes_after_this_median_of_items(differ: float, median: int) -> None:
    items = _items(PASSING, choices(np.full(RUNS, differ)), 1 / ALPHA, seed=5, most=400, sequences=RUNS)
    assert np.median(items) == pytest.approx(median, rel=0.08)


def test_a_loss_of_ten_points_fails_after_a_median_below_300_items_on_one_suite() -> None:
    draw = choices(np.full(RUNS, 0.12), 2 * MARGIN)
    items = _items(FAILING, draw, 1 / ALPHA, seed=6, most=400, sequences=RUNS)
    assert np.median(items) < 300


@pytest.mark.parametrize("differ", [0.005, 0.01, 0.03, 0.08])
def test_the_recommended_number_of_items_has_its_stated_power_also_where_few_items_differ(
    differ: float,
) -> None:
    recommended = items_for_discordance(differ, KEPT, ALPHA, seed=7)
    assert recommended is not None
    draw = choices(np.full(RUNS, differ))
    items = _items(PASSING, draw, 1 / ALPHA, seed=8, most=recommended, sequences=RUNS)
    error = 0.03 + 3 * math.sqrt(POWER * (1 - POWER) / RUNS)
    assert np.mean(items <= recommended) >= POWER - error
    # Sequences without any change all pass at the same item, so the power there comes in one step.
    assert np.mean(items < recommended) <= POWER + error


def test_capital_is_the_same_whether_items_come_at_once_or_in_parts() -> None:
    gains = _gains(9, 5, 90, differ=0.2, gain=0.0)
    for design in (PASSING, FAILING, Design(0.0, None)):
        whole = Capital(design, 5).extend(gains)
        parts = Capital(design, 5)
        joined = np.concatenate(
            [parts.extend(gains[:, :1]), parts.extend(gains[:, 1:64]), parts.extend(gains[:, 64:])], 1
        )
        np.testing.assert_allclose(joined, whole, rtol=0, atol=1e-12)


outcomes = st.lists(st.sampled_from([-1.0, 0.0, 0.0, 0.0, 1.0]), min_size=2, max_size=250)


@settings(max_examples=40, deadline=None)
@given(outcomes, st.sampled_from([0.02, 0.2, 0.6]), st.data())
def test_a_verdict_does_not_depend_on_when_anyone_looked(
    values: list[float], margin: float, data: st.DataObject
) -> None:
    suite = SuitePolicy(name="kept", role=Role.RETAINED, margin=margin, items=1_000)
    gains = np.array(values)
    final = _test(_pairs(gains), suite)
    looked = data.draw(st.integers(1, len(values)))
    early = _test(_pairs(gains[:looked]), suite)
    if final.decided_after is not None and looked >= final.decided_after:
        assert (early.verdict, early.decided_after) == (final.verdict, final.decided_after)
    else:
        assert early.verdict is Verdict.INCONCLUSIVE


@settings(max_examples=40, deadline=None)
@given(outcomes, st.sampled_from([0.02, 0.2, 0.6]))
def test_bounds_agree_with_the_capital_and_with_each_other(values: list[float], margin: float) -> None:
    suite = SuitePolicy(name="kept", role=Role.RETAINED, margin=margin, items=1_000)
    result = _test(_pairs(np.array(values)), suite)
    assert (result.lower_bound >= -margin) == (result.pass_log_capital >= result.pass_threshold)
    assert (result.upper_bound <= -margin) == (result.fail_log_capital >= result.fail_threshold)
    assert -1 <= result.lower_bound <= 1
    assert -1 <= result.upper_bound <= 1


numbers = st.one_of(
    st.floats(-1e6, 1e6),
    st.sampled_from([0.0, 1.0, 1.0 + 1e-15, 1e-300, 0.5]),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40),
    st.integers(1, 4),
    st.sampled_from([KEPT, LEARNED]),
)
def test_every_figure_of_the_test_is_finite(
    values: list[tuple[float, float]], cluster_size: int, suite: SuitePolicy
) -> None:
    base, tuned = np.array(values).T
    pairs = PairedValues(Metric.BITS_PER_BYTE, base, tuned, np.arange(len(base)) // cluster_size)
    result = _test(pairs, suite)
    figures = [figure for figure in vars(result).values() if isinstance(figure, float)]
    assert np.isfinite(figures).all()
    assert 0 <= result.worse_p <= 1


def test_only_the_first_item_of_a_cluster_is_bet_on() -> None:
    gains = np.array([0.0, -1.0, -1.0, 1.0, -1.0])
    clusters = np.array([0, 0, 1, 2, 1])
    result = _test(_pairs(gains, clusters))
    assert result.observations == 3
    assert result.lower_bound == _test(_pairs(gains[[0, 2, 3]])).lower_bound


def test_a_verdict_counts_items_in_their_order_not_clusters() -> None:
    gains = np.zeros(200)
    alone, doubled = _test(_pairs(gains)), _test(_pairs(gains, np.arange(200) // 2))
    assert alone.decided_after is not None
    assert doubled.decided_after == 2 * alone.decided_after - 1


def test_a_text_that_is_ruined_counts_as_half_a_bit() -> None:
    gains = np.full(100, -3.0)
    result = _test(_texts(gains))
    assert result.verdict is Verdict.FAILED
    assert (result.clipped, result.bound) == (100, 0.5)
    assert result.lower_bound >= -0.5


def test_a_wide_margin_widens_what_counts() -> None:
    assert gain_bound(Metric.BITS_PER_BYTE, 0.4) == 0.8
    assert gain_bound(Metric.BITS_PER_BYTE, 0.05) == 0.5
    assert gain_bound(Metric.ACCURACY, 0.9) == 1.0


def test_texts_of_a_careful_run_pass_within_sixty_items() -> None:
    gains = np.random.RandomState(12).normal(-0.01, 0.02, size=200)
    result = _test(_texts(gains))
    assert result.verdict is Verdict.PASS
    assert result.decided_after is not None
    assert result.decided_after <= 60


def test_scoring_stops_at_a_verdict_or_at_the_last_item_that_may_be_asked() -> None:
    policy = GatePolicy(
        suites=(SuitePolicy(name="kept", role=Role.RETAINED, margin=MARGIN, items=30), LEARNED)
    )
    nothing = np.zeros(100)

    def progress(items: int, available: int = 2_000) -> Progress:
        return verdict_so_far(policy, "kept", _pairs(nothing[:items]), available=available)

    assert progress(20).more
    assert progress(20).verdict is Verdict.INCOMPLETE
    assert progress(30).verdict is Verdict.INCONCLUSIVE
    assert progress(20, available=20).verdict is Verdict.INCONCLUSIVE
    assert progress(100).verdict is Verdict.PASS
    assert progress(100).decided_after == _test(_pairs(nothing)).decided_after
    assert not progress(100).more
    with pytest.raises(KeyError, match="other"):
        verdict_so_far(policy, "other", _pairs(nothing), available=100)


def test_a_design_that_cannot_be_tested_is_refused() -> None:
    for null, target in ((1.0, None), (-1.0, None), (0.0, 0.0), (0.0, 1.0)):
        with pytest.raises(ValueError, match="target"):
            Design(null, target)


def test_without_evidence_no_value_is_rejected() -> None:
    assert highest_rejected(np.array([-1.0]), Design(0.0, None), math.log(20)) == -1.0


def test_bets_are_pinned() -> None:
    """A report's figures depend on them: raise evalstats.VERSION with a change."""
    result = _test(_pairs(np.tile([0.0] * 31 + [-1.0, 1.0, 0.0], 8)))
    assert result.decided_after == 225
    assert result.pass_log_capital == pytest.approx(3.8510207356345734, abs=1e-9)
    assert result.lower_bound == pytest.approx(-0.044709754101724924, abs=1e-9)
    assert result.upper_bound == pytest.approx(0.05480723918051596, abs=1e-9)
