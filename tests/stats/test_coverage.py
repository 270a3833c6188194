"""Does 95% mean 95%? Nominal intervals against the truth that generated the data, and null p-values against uniform.

Fixed seeds; 2,500 replications, so that the Monte-Carlo error of a coverage of 0.95 is 0.44 points. Proportions are
summed over all outcomes and have no such error.
"""

import numpy as np
import pytest
from scipy import stats

from lydite.stats import estimate, paired_difference
from tests.stats.helpers import ACC, F1, MEAN, PERPLEXITY, scores, stat_scores

REPLICATIONS = 2500


def covers(found, truth):
    return found.interval is not None and found.interval[0] <= truth <= found.interval[1]


def proportion_coverage(n, truths, scale=1.0):
    """Exact coverage at each of `truths`; `scale` shrinks the intervals, to see that the test can fail."""
    intervals = np.array([estimate(ACC, scores(ACC, [1] * k + [0] * (n - k))).interval for k in range(n + 1)])
    middle, half = intervals.mean(axis=1), np.diff(intervals, axis=1)[:, 0] / 2 * scale
    inside = (middle - half <= truths[:, None]) & (truths[:, None] <= middle + half)
    return (stats.binom.pmf(np.arange(n + 1), n, truths[:, None]) * inside).sum(axis=1)


@pytest.mark.parametrize("n", [40, 150])
def test_proportions(n):
    truths = np.linspace(0.05, 0.95, 91)
    assert 0.94 <= proportion_coverage(n, truths).mean() <= 0.96
    assert proportion_coverage(n, truths).min() >= 0.91
    shrunk = proportion_coverage(n, truths, scale=0.9).mean()
    assert shrunk < 0.935


def clustered_draws(rng, truth, num_clusters=40, binary=True):
    """Clusters of unequal size whose members resemble each other; the mean over all clusters is `truth`."""
    index = np.repeat(np.arange(num_clusters), rng.integers(2, 9, num_clusters))
    if binary:
        values = rng.random(len(index)) < rng.beta(3 * truth, 3 * (1 - truth), num_clusters)[index]
    else:
        values = truth + rng.normal(0, 1, num_clusters)[index] + rng.normal(0, 1, len(index))
    return values, [str(i) for i in index]


@pytest.mark.parametrize(("metric", "truth"), [(ACC, 0.85), (MEAN, 3.0)])
def test_clustered_means(metric, truth):
    rng = np.random.default_rng(7)
    with_clusters = without = 0
    for _ in range(REPLICATIONS):
        values, clusters = clustered_draws(rng, truth, binary=metric is ACC)
        table = scores(metric, values)
        with_clusters += covers(estimate(metric, table, clusters=clusters), truth)
        without += covers(estimate(metric, table), truth)
    assert 0.93 <= with_clusters / REPLICATIONS <= 0.97
    # Clusters that are ignored give an interval that promises too much.
    assert without / REPLICATIONS < 0.88


def test_bootstrap_of_counts():
    """F1 over the corpus, of 80 samples that are hits, false alarms, misses or true negatives."""
    cells = np.array([0.35, 0.15, 0.1, 0.4])
    truth, rng = float(F1.finish(cells)), np.random.default_rng(8)
    inside = [
        covers(estimate(F1, stat_scores(F1, np.eye(4)[rng.choice(4, 80, p=cells)]), resamples=600, seed=i), truth)
        for i in range(REPLICATIONS)
    ]
    assert 0.93 <= np.mean(inside) <= 0.97


def test_bootstrap_of_perplexity():
    """Documents whose lengths differ tenfold."""
    rng = np.random.default_rng(9)
    truth, inside = float(np.exp(3.0)), []
    for i in range(REPLICATIONS):
        units = np.exp(rng.normal(5, 0.8, 40))
        nats = units * rng.normal(3.0, 0.4, 40)
        rows = stat_scores(PERPLEXITY, np.stack([nats, units], axis=1))
        inside.append(covers(estimate(PERPLEXITY, rows, resamples=600, seed=i), truth))
    assert 0.93 <= np.mean(inside) <= 0.97


def is_uniform(p_values):
    return stats.kstest(p_values, "uniform").pvalue > 0.01


def test_null_p_values_are_uniform():
    """Permutation tests are uniform under the null; exact McNemar is at most so, because its counts are few."""
    rng = np.random.default_rng(10)
    means, corpora, mcnemars = [], [], []
    for i in range(400):
        a, b = rng.normal(0, 1, (2, 40))
        means.append(paired_difference(MEAN, scores(MEAN, a), scores(MEAN, b), resamples=999, seed=i).p)
        units = rng.integers(20, 200, 40).astype(float)
        x, y = (stat_scores(PERPLEXITY, np.stack([units * rng.normal(3, 0.3, 40), units], axis=1)) for _ in range(2))
        corpora.append(paired_difference(PERPLEXITY, x, y, resamples=999, seed=i).p)
        right, other = (rng.random((2, 100)) < 0.6).astype(float)
        mcnemars.append(paired_difference(ACC, scores(ACC, right), scores(ACC, other)).p)
    assert is_uniform(means)
    assert is_uniform(corpora)
    assert not is_uniform(np.square(means))
    for threshold in (0.05, 0.2, 0.5):
        assert np.mean(np.array(mcnemars) <= threshold) <= threshold + 3 * np.sqrt(threshold * (1 - threshold) / 400)


def test_ignoring_clusters_finds_differences_that_are_not_there():
    rng = np.random.default_rng(11)
    clustered = plain = 0
    for i in range(300):
        shift = np.repeat(rng.normal(0, 1, 25), 6)
        a, b = shift + rng.normal(0, 1, 150), rng.normal(0, 1, 150)
        names = [str(j // 6) for j in range(150)]
        x, y = scores(MEAN, a), scores(MEAN, b)
        clustered += paired_difference(MEAN, x, y, clusters=names, resamples=999, seed=i).p <= 0.05
        plain += paired_difference(MEAN, x, y, resamples=999, seed=i).p <= 0.05
    assert clustered / 300 <= 0.09
    assert plain / 300 >= 0.15
