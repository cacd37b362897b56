"""Interval of a mean by the studentised bootstrap over clusters."""

from __future__ import annotations

import numpy as np
from scipy.stats import t as student_t

from evalstats.cluster import cluster_standard_error
from evalstats.paired import Floats, Ints, cluster_sums

MIN_CLUSTERS = 10
"""Below this the quantiles of the resampled t are too unstable (whole resamples of one cluster occur)."""

_SMALLEST_ERROR = 0.1
"""Of the sample's own standard error: a resample's error counts as at least this much."""

_CHUNK = 1_000
"""Resamples handled at once: 1,000 x 1,000 clusters is 8 MB an array."""


class MeanDistribution:
    """Where the mean of clustered values may lie; quantiles give two-sided intervals and one-sided bounds.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 12 (bootstrap-t);
    resampling whole clusters as in Davison and Hinkley (1997), section 3.8; why not percentiles: Hesterberg,
    The American Statistician 69 (2015) 371-386 (they are too narrow and ignore skew, bootstrap-t is
    second-order accurate). Values are differences of the same item under two models, so the resampling is
    paired.

    Assumes independent clusters with finite variance. Below MIN_CLUSTERS clusters it falls back to Student's
    t with G - 1 degrees of freedom, which assumes roughly normal cluster means; with one cluster there is no
    estimate and ValueError is raised. Where all values are equal the distribution is a point.

    Departure from the source: where one cluster holds nearly all the spread, resamples without it have an error near
    zero and studentised means without limit. Their error is taken as a tenth of the sample's: bounds stay wide and
    finite.

    The random stream is numpy's RandomState, frozen by NEP 19: the same seed gives the same figures on any
    later numpy, which a report that others recompute needs.
    """

    def __init__(self, values: Floats, clusters: Ints, resamples: int, seed: int) -> None:
        self.mean = float(values.mean())
        self.standard_error = cluster_standard_error(values, clusters)
        sums, sizes = cluster_sums(values, clusters)
        self.clusters = len(sums)
        self._t_values: Floats | None = None
        if self.standard_error <= 1e-15 * max(1.0, abs(self.mean)):
            self.method = "constant"
        elif self.clusters < MIN_CLUSTERS:
            self.method = "student-t"
        else:
            self.method = "bootstrap-t"
            self._t_values = _resampled_t(
                sums, sizes, self.mean, self.standard_error, resamples=resamples, seed=seed
            )

    def quantile(self, level: float) -> float:
        """The mean's lower confidence bound at confidence 1 - level (level .05: a one-sided 95% lower
        bound)."""
        if self.method == "constant":
            return self.mean
        if self._t_values is None:
            return self.mean + self.standard_error * float(student_t.ppf(level, self.clusters - 1))
        # The studentised quantiles swap ends: a right tail of t* means the mean may lie further to the left.
        return self.mean - self.standard_error * float(np.quantile(self._t_values, 1 - level))


def _resampled_t(
    sums: Floats, sizes: Floats, mean: float, error: float, *, resamples: int, seed: int
) -> Floats:
    """Studentised means of resampled clusters, float64 [resamples], sorted."""
    random = np.random.RandomState(seed)
    count = len(sums)
    parts: list[Floats] = []
    for start in range(0, resamples, _CHUNK):
        picks = random.randint(0, count, size=(min(_CHUNK, resamples - start), count))
        picked_sums, picked_sizes = sums[picks], sizes[picks]
        items = picked_sizes.sum(axis=1)
        means = picked_sums.sum(axis=1) / items
        residuals = picked_sums - means[:, None] * picked_sizes
        errors = np.sqrt(count / (count - 1) * np.square(residuals).sum(axis=1)) / items
        parts.append((means - mean) / np.maximum(errors, _SMALLEST_ERROR * error))
    return np.sort(np.concatenate(parts))
