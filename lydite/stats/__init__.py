"""Statistics: from scores to estimates with intervals, and from two models' scores to a tested difference.

    estimate(metric, scores, clusters=...)          one Estimate over samples
    pool(estimates, weighting="samples")            one Estimate over tasks
    paired_difference(metric, a, b, clusters=...)   one Difference between two models on the same samples
    pool_differences(differences, weighting=...)    the same over tasks
    holm(p_values), rank_groups(...)                many comparisons at once

Contract: a result depends on its arguments alone (seed included), not on the order of the samples. What cannot be
known is None, never 0 and never an interval of no width. Formulas name their source where they stand. Only numpy and
scipy.special are imported: no torch, and not the whole of scipy.stats.
"""

from lydite.stats.difference import Difference, paired_difference, pool_differences
from lydite.stats.estimates import estimate
from lydite.stats.intervals import clopper_pearson, wilson
from lydite.stats.multiple import benjamini_hochberg, holm, rank_groups
from lydite.stats.paired import mcnemar
from lydite.stats.pooling import pool

__all__ = [
    "Difference",
    "benjamini_hochberg",
    "clopper_pearson",
    "estimate",
    "holm",
    "mcnemar",
    "paired_difference",
    "pool",
    "pool_differences",
    "rank_groups",
    "wilson",
]
