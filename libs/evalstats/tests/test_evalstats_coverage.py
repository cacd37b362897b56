"""Do the intervals hold what they promise? Seeded simulations, small enough for every run."""

from __future__ import annotations

import numpy as np
import pytest

from evalstats.bootstrap import MIN_CLUSTERS, MeanDistribution
from evalstats.cluster import design_effect
from evalstats.proportions import tango, wilson


def _close(covered: int, runs: int, nominal: float, slack: float) -> bool:
    """Within `slack` of nominal, plus three standard errors of the simulation itself."""
    return bool(abs(covered / runs - nominal) <= slack + 3 * np.sqrt(nominal * (1 - nominal) / runs))


@pytest.mark.parametrize(("improves", "worsens"), [(0.05, 0.05), (0.03, 0.12), (0.20, 0.10)])
def test_tango_lower_bound_covers_95_of_100_times_at_100_items(improves: float, worsens: float) -> None:
    random = np.random.RandomState(7)
    tables = random.multinomial(100, [improves, worsens, 1 - improves - worsens], size=1_000)
    covered = sum(tango(b, c, 100, 0.90)[0] < improves - worsens for b, c, _ in tables)
    assert _close(covered, 1_000, 0.95, slack=0.012)


def test_wilson_covers_at_20_items() -> None:
    random = np.random.RandomState(8)
    shares = random.uniform(0.05, 0.95, size=2_000)
    inside = 0
    for share, count in zip(shares, random.binomial(20, shares), strict=True):
        lower, upper = wilson(count, 20)
        inside += lower <= share <= upper
    assert _close(inside, 2_000, 0.95, slack=0.012)


def _skewed(random: np.random.RandomState, n: int) -> np.ndarray:
    return random.lognormal(0.0, 0.8, size=n)


@pytest.mark.parametrize("n", [30, 100])
def test_studentised_bootstrap_bounds_hold_on_skewed_values(n: int) -> None:
    random, mean, runs = np.random.RandomState(9), float(np.exp(0.32)), 400
    lower = upper = 0
    for run in range(runs):
        distribution = MeanDistribution(_skewed(random, n), np.arange(n), 500, seed=run)
        assert distribution.method == "bootstrap-t"
        lower += distribution.quantile(0.05) < mean
        upper += distribution.quantile(0.95) > mean
    assert _close(lower, runs, 0.95, slack=0.015)
    assert _close(upper, runs, 0.95, slack=0.02)


def test_cluster_bootstrap_covers_where_the_naive_interval_does_not() -> None:
    random, runs, clusters, size = np.random.RandomState(10), 300, 40, 5
    names = np.repeat(np.arange(clusters), size)
    clustered = naive = 0
    for run in range(runs):
        values = np.repeat(random.normal(size=clusters), size) + 0.3 * random.normal(size=clusters * size)
        aware = MeanDistribution(values, names, 400, seed=run)
        blind = MeanDistribution(values, np.arange(len(values)), 400, seed=run)
        clustered += aware.quantile(0.025) <= 0 <= aware.quantile(0.975)
        naive += blind.quantile(0.025) <= 0 <= blind.quantile(0.975)
    assert _close(clustered, runs, 0.95, slack=0.02)
    assert naive / runs < 0.75


def test_tango_over_the_design_effect_covers_clustered_choices() -> None:
    random, runs, clusters, size = np.random.RandomState(11), 600, 60, 3
    names = np.repeat(np.arange(clusters), size)
    covered = 0
    for _ in range(runs):
        # Items of a cluster mostly share their outcome.
        shared = np.repeat(random.choice([1.0, -1.0, 0.0], size=clusters, p=[0.1, 0.15, 0.75]), size)
        gains = np.where(random.uniform(size=len(shared)) < 0.8, shared, 0.0)
        effect = design_effect(gains, names)
        lower, _ = tango((gains > 0).sum() / effect, (gains < 0).sum() / effect, len(gains) / effect, 0.90)
        covered += lower < -0.05 * 0.8
    assert _close(covered, runs, 0.95, slack=0.02)


def test_few_clusters_fall_back_to_students_t() -> None:
    values = np.array([0.1, 0.4, 0.2, 0.3])
    distribution = MeanDistribution(values, np.arange(4), 1_000, seed=0)
    assert len(values) < MIN_CLUSTERS
    assert distribution.method == "student-t"
    # 0.25 - 2.353363 * 0.0645497, t quantile with 3 degrees of freedom from a table.
    assert distribution.quantile(0.05) == pytest.approx(0.25 - 2.353363 * 0.0645497, abs=1e-6)


def test_values_without_spread_give_a_point() -> None:
    distribution = MeanDistribution(np.full(20, 0.7), np.arange(20), 1_000, seed=0)
    assert distribution.method == "constant"
    assert distribution.quantile(0.05) == distribution.quantile(0.95) == pytest.approx(0.7)


def test_one_cluster_gives_no_interval() -> None:
    with pytest.raises(ValueError, match="two clusters"):
        MeanDistribution(np.array([0.1, 0.2]), np.zeros(2, dtype=np.int64), 1_000, seed=0)


def test_the_same_seed_gives_the_same_figures_on_any_numpy() -> None:
    values = np.random.RandomState(5).normal(size=40)
    distribution = MeanDistribution(values, np.arange(40), 2_000, seed=20_240_601)
    assert distribution.quantile(0.05) == pytest.approx(-0.16656667843277534, abs=1e-12)
