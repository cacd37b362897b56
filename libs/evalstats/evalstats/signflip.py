"""Is the tuned model worse than its base at all? Exact where outcomes are counts, seeded where they are
not."""

from __future__ import annotations

import numpy as np

from evalstats.paired import Floats, Ints, cluster_sums


def exact_regression_p(gains: Floats, clusters: Ints) -> float:
    """One-sided p-value of "the tuned model is worse" for gains in {-1, 0, 1}: exact McNemar, by cluster.

    Under the hypothesis of no difference each cluster's total gain is as likely to have the opposite sign
    (Fisher's randomisation test; by whole clusters as in Winkler et al., NeuroImage 92 (2014) 381-397). The
    distribution of the sum is computed exactly by convolution. With clusters of one item this is McNemar's
    exact conditional test (Psychometrika 12 (1947) 153-157), a binomial over the discordant pairs. Exact at
    any sample size, and conservative because discrete: with fewer than five discordant clusters it cannot
    reach 5%.
    """
    totals = np.rint(cluster_sums(gains, clusters)[0]).astype(np.int64)
    observed = int(totals.sum())
    distribution = np.ones(1)  # probability of each sum from -reach to +reach
    for size in np.abs(totals[totals != 0]):
        spread = np.zeros(len(distribution) + 2 * int(size))
        spread[: len(distribution)] += 0.5 * distribution
        spread[2 * int(size) :] += 0.5 * distribution
        distribution = spread
    reach = (len(distribution) - 1) // 2
    return float(min(1.0, distribution[: observed + reach + 1].sum()))


def sampled_regression_p(gains: Floats, clusters: Ints, resamples: int, seed: int) -> float:
    """One-sided p-value of "the tuned model is worse" for real-valued gains, by sampled sign flips of
    clusters.

    Source as above. The observed assignment counts as one of the samples (Phipson and Smyth, "Permutation
    P-values should never be zero", 2010), so the smallest value is 1 / (resamples + 1). Assumes that gains
    are symmetric about their centre under the hypothesis; below five clusters it cannot reach 5%.
    """
    totals = cluster_sums(gains, clusters)[0]
    observed = float(totals.sum())
    random = np.random.RandomState(seed)
    as_low = 0
    for start in range(0, resamples, 1_000):
        rows = min(1_000, resamples - start)
        signs = random.randint(0, 2, size=(rows, len(totals))) * 2.0 - 1.0
        # The slack keeps sums that differ by rounding alone on the counted side.
        as_low += int(np.count_nonzero(signs @ totals <= observed + 1e-12 * np.abs(totals).sum()))
    return (as_low + 1) / (resamples + 1)


def holm(p_values: list[float]) -> list[float]:
    """Adjusted p-values, in the order given, that keep the family-wise error at the level they are compared
    with.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65-70. Valid under any dependence between the
    tests.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
