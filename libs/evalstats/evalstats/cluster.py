"""What clusters cost: items that hang together carry less information than as many independent ones."""

from __future__ import annotations

import numpy as np

from evalstats.paired import Floats, Ints, TooFewClusters, cluster_sums


def cluster_standard_error(values: Floats, clusters: Ints) -> float:
    """Standard error of the mean of `values` when only clusters are independent.

    Source: Miller, "Adding Error Bars to Evals" (arXiv 2411.00640), section 2.2, here with the factor G/(G-1)
    of the jackknife that the paper leaves out, because suites may have few clusters. With clusters of one
    item it is the usual s/sqrt(n). Raises TooFewClusters below two; biased low below about 20.
    """
    sums, sizes = cluster_sums(values, clusters)
    count = len(sums)
    if count < 2:
        raise TooFewClusters("an interval needs at least two clusters of items; all items are of one")
    residuals = sums - values.mean() * sizes
    return float(np.sqrt(count / (count - 1) * np.sum(residuals**2)) / len(values))


def design_effect(values: Floats, clusters: Ints) -> float:
    """Variance of the mean with clusters over its variance without: n items count as n / effect.

    Source: Rao and Scott, "A simple method for the analysis of clustered binary data", Biometrics 48 (1992)
    577-585: counts divided by the design effect go into methods for independent items. Two departures, both
    towards wider intervals: the effect is never below 1, and where the values do not vary at all (nothing to
    estimate it from) every cluster counts as one item.
    """
    sizes = np.bincount(clusters).astype(np.float64)
    worst = float(np.sum(sizes**2) / len(values))
    if len(sizes) == len(values):
        return 1.0
    spread = float(values.std())
    if spread == 0.0 or len(sizes) < 2:
        return worst
    effect = (cluster_standard_error(values, clusters) * np.sqrt(len(values)) / spread) ** 2
    return float(max(1.0, effect))
