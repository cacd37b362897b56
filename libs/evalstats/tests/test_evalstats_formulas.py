"""Formulas against numbers printed in the literature.

Cavo et al. (2012), complete response before and after consolidation therapy, and Bentur et al. (2009), airway
hyper-responsiveness before and after stem cell transplantation, as analysed in Fagerland, Lydersen and Laake,
Statistics in Medicine 33 (2014) 2850-2875 and BMC Medical Research Methodology 13 (2013) 91.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from evalstats.cluster import cluster_standard_error, design_effect
from evalstats.metric import Metric
from evalstats.paired import PairedValues
from evalstats.policy import Role, SuitePolicy
from evalstats.power import items_for_discordance, items_to_pass
from evalstats.proportions import tango, wilson
from evalstats.signflip import exact_regression_p, holm, sampled_regression_p


def test_tango_interval_is_the_published_one_for_cavo() -> None:
    assert tango(improved=6, worsened=16, n=161) == pytest.approx((-0.1240, -0.0054), abs=5e-5)


def test_tango_interval_is_the_published_one_for_bentur() -> None:
    assert tango(improved=1, worsened=7, n=21) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_tango_interval_has_width_where_no_pair_is_discordant() -> None:
    z2 = 1.959963984540054**2
    assert tango(0, 0, 100) == pytest.approx((-z2 / (100 + z2), z2 / (100 + z2)), abs=1e-9)


def test_tango_reaches_the_end_where_every_pair_worsened() -> None:
    lower, upper = tango(0, 20, 20)
    assert lower == -1.0
    z2 = 1.959963984540054**2
    assert upper == pytest.approx(-(20 - z2) / (20 + z2), abs=1e-9)


def test_tango_mirrors_when_the_models_are_exchanged() -> None:
    lower, upper = tango(12, 5, 80)
    assert tango(5, 12, 80) == pytest.approx((-upper, -lower), abs=1e-9)


def test_tango_refuses_a_table_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="not a paired table"):
        tango(8, 8, 10)


def test_wilson_interval_is_newcombes_published_one() -> None:
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I: 81 of 263 and 0 of 20, score method.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def _gains(improved: int, worsened: int, n: int) -> np.ndarray:
    return np.array([1.0] * improved + [-1.0] * worsened + [0.0] * (n - improved - worsened))


def test_exact_test_is_half_of_the_published_two_sided_mcnemar() -> None:
    # Two-sided 0.052479; with unequal counts its one-sided half is exact.
    assert exact_regression_p(_gains(6, 16, 161), np.arange(161)) == pytest.approx(0.052479 / 2, abs=5e-7)


@pytest.mark.parametrize(("improved", "worsened"), [(0, 0), (5, 0), (0, 5), (3, 11), (20, 31), (40, 25)])
def test_exact_test_of_single_items_is_binomial_over_discordant_ones(improved: int, worsened: int) -> None:
    discordant = improved + worsened
    expected = binomtest(improved, discordant, 0.5, "less").pvalue if discordant else 1.0
    n = 120
    found = exact_regression_p(_gains(improved, worsened, n), np.arange(n))
    assert found == pytest.approx(expected, abs=1e-12)


def test_items_of_one_cluster_are_one_piece_of_evidence() -> None:
    gains = _gains(0, 6, 12)
    apart = exact_regression_p(gains, np.arange(12))
    together = exact_regression_p(gains, np.array([0] * 6 + list(range(1, 7))))
    assert apart == pytest.approx(1 / 64)
    assert together == pytest.approx(1 / 2)


def test_sampled_test_agrees_with_the_exact_one() -> None:
    gains = _gains(8, 18, 90)
    sampled = sampled_regression_p(gains, np.arange(90), 20_000, seed=3)
    assert sampled == pytest.approx(exact_regression_p(gains, np.arange(90)), abs=0.004)


def test_holm_gives_the_textbook_adjustment() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_cluster_standard_error_with_single_items_is_s_over_root_n() -> None:
    values = np.random.RandomState(0).normal(size=50)
    expected = values.std(ddof=1) / np.sqrt(50)
    assert cluster_standard_error(values, np.arange(50)) == pytest.approx(expected)


def test_copied_items_carry_no_information() -> None:
    values = np.random.RandomState(1).binomial(1, 0.4, size=60).astype(float)
    single = cluster_standard_error(values, np.arange(60))
    tripled = cluster_standard_error(np.repeat(values, 3), np.repeat(np.arange(60), 3))
    assert tripled == pytest.approx(single)
    # 3 times the variance, and the factor G / (G - 1) of the cluster estimate.
    assert design_effect(np.repeat(values, 3), np.repeat(np.arange(60), 3)) == pytest.approx(3 * 60 / 59)


def test_design_effect_without_variation_counts_each_cluster_once() -> None:
    assert design_effect(np.zeros(12), np.repeat(np.arange(4), 3)) == 3.0


KEPT = SuitePolicy(name="kept", role=Role.RETAINED, margin=0.05, items=1_000)


def test_recommended_items_do_not_promise_certainty_from_a_sample_without_change() -> None:
    same = np.array([1.0, 0.0] * 25)
    unchanged = items_to_pass(PairedValues(Metric.ACCURACY, same, same, np.arange(50)), KEPT, 0.05, seed=1)
    certain = items_for_discordance(0.0, KEPT, 0.05, seed=1)
    assert unchanged is not None
    assert certain is not None
    assert unchanged > certain


def test_recommended_items_grow_as_the_margin_shrinks_and_end_at_what_is_simulated() -> None:
    margins = [replace(KEPT, margin=margin) for margin in (0.2, 0.1, 0.05)]
    items = [items_for_discordance(0.1, suite, 0.05, seed=1) or 0 for suite in margins]
    assert 0 < items[0] < items[1] < items[2]
    assert items_for_discordance(0.1, replace(KEPT, margin=0.0001), 0.05, seed=1) is None


def test_few_texts_do_not_tell_how_many_are_needed() -> None:
    def texts(n: int) -> PairedValues:
        tuned = np.random.RandomState(n).normal(1.0, 0.05, size=n)
        return PairedValues(Metric.BITS_PER_BYTE, np.full(n, 1.0), tuned, np.arange(n))

    assert items_to_pass(texts(9), KEPT, 0.05, seed=1) is None
    assert (items_to_pass(texts(30), KEPT, 0.05, seed=1) or 0) < 100
