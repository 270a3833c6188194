"""Two models on the same samples: published examples, scipy, and order."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lydite.stats import mcnemar, paired_difference, pool_differences
from lydite.stats.paired import paired_proportions
from lydite.types import Metric
from tests.stats.helpers import ACC, F1, MEAN, PERPLEXITY, scores, stat_scores


def test_mcnemar_published():
    """Airway hyper-responsiveness of 21 children before and after transplantation (Bentur et al. 2009): 1 against 7
    discordant pairs. Fagerland, Lydersen and Laake 2013, BMC Med. Res. Methodology 13:91: exact conditional p = 0.0703."""
    assert mcnemar(1, 7) == pytest.approx(0.0703, abs=5e-5)
    assert mcnemar(7, 1) == mcnemar(1, 7)


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_is_the_sign_test(a, b):
    expected = stats.binomtest(a, a + b, 0.5).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-9)


def test_difference_of_proportions():
    a = [1] * 1 + [1] * 1 + [0] * 7 + [0] * 12
    b = [1] * 1 + [0] * 1 + [1] * 7 + [0] * 12
    found = paired_difference(ACC, scores(ACC, a), scores(ACC, b))
    assert (found.a_only, found.b_only, found.n, found.test) == (1, 7, 21, "mcnemar")
    assert found.value == pytest.approx(-6 / 21)
    assert found.p == pytest.approx(0.0703, abs=5e-5)
    # Bonett and Price 2012: one added to each discordant count, two to n.
    x, y = 2 / 23, 8 / 23
    half = 1.959964 * math.sqrt((x + y - (x - y) ** 2) / 23)
    assert found.interval == pytest.approx((x - y - half, x - y + half), abs=1e-6)
    assert found.stderr == pytest.approx(stats.sem(np.subtract(a, b)))


@pytest.mark.parametrize("probabilities", [(0.5, 0.2, 0.1, 0.2), (0.8, 0.05, 0.05, 0.1), (0.3, 0.02, 0.1, 0.58)])
def test_interval_of_paired_proportions_covers(probabilities):
    """Exact, over all outcomes of 60 pairs."""
    n, (_, p_a, p_b, _) = 60, probabilities
    covered = 0.0
    for a_only in range(n + 1):
        for b_only in range(n - a_only + 1):
            chance = stats.multinomial.pmf([a_only, b_only, n - a_only - b_only], n, [p_a, p_b, 1 - p_a - p_b])
            if chance > 1e-9:
                low, high = paired_proportions(a_only, b_only, n, 0.95)[0]
                covered += chance * (low <= p_a - p_b <= high)
    assert 0.94 <= covered <= 0.99


def test_equal_answers():
    found = paired_difference(ACC, scores(ACC, [1, 0, 1]), scores(ACC, [1, 0, 1]))
    assert (found.value, found.p, found.a_only, found.b_only) == (0.0, 1.0, 0, 0)
    assert found.interval[0] < 0 < found.interval[1]
    assert found.detectable > 0
    found = paired_difference(MEAN, scores(MEAN, [3.5, 2.5]), scores(MEAN, [3.5, 2.5]))
    assert (found.value, found.p, found.stderr, found.interval, found.detectable) == (0.0, 1.0, 0.0, None, None)


def test_means_equal_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 30), rng.normal(0.7, 1, 30)
    found = paired_difference(MEAN, scores(MEAN, a), scores(MEAN, b), level=0.9)
    theirs = stats.ttest_rel(a, b)
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval(0.9)))
    assert found.stderr == pytest.approx(stats.sem(a - b))
    assert found.p == pytest.approx(theirs.pvalue, abs=0.02)
    assert (found.method, found.test, found.n) == ("t", "permutation", 30)


def test_exact_permutation_equals_scipys():
    rng = np.random.default_rng(1)
    a, b = rng.normal(1, 1, 9), rng.normal(0.3, 1, 9)
    theirs = stats.permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    found = paired_difference(MEAN, scores(MEAN, a), scores(MEAN, b))
    assert found.p == pytest.approx(theirs.pvalue, abs=1e-12)


def test_permutation_of_right_and_wrong_is_mcnemar():
    """Clusters of two that agree within: the permutation test of G clusters is McNemar's of G samples."""
    a, b = [1] * 2 + [1] * 9 + [0] * 1, [1] * 2 + [0] * 9 + [1] * 1
    twice = [str(i // 2) for i in range(24)]
    found = paired_difference(
        ACC, scores(ACC, np.repeat(a, 2)), scores(ACC, np.repeat(b, 2)), clusters=twice, resamples=10_000
    )
    assert found.p == pytest.approx(mcnemar(9, 1))
    assert (found.num_clusters, found.test, found.a_only, found.b_only) == (12, "clustered permutation", 18, 2)


def test_random_permutation_never_gives_zero():
    a, b = np.arange(40) + 5.0, np.zeros(40)
    found = paired_difference(MEAN, scores(MEAN, a), scores(MEAN, b), resamples=999)
    assert found.p == pytest.approx(1 / 1000)


def test_corpus_permutation_equals_scipys():
    rng = np.random.default_rng(3)
    a, b = np.eye(4)[rng.integers(0, 4, 10)], np.eye(4)[rng.integers(0, 4, 10)]
    a[0], b[0] = [1, 0, 0, 0], [0, 0, 1, 0]

    def difference(x, y, axis):
        one, two = x.sum(axis=-1), y.sum(axis=-1)
        return F1.finish(np.moveaxis(one, 0, -1)) - F1.finish(np.moveaxis(two, 0, -1))

    # scipy permutes along one axis; whole rows are exchanged when every column uses the same swaps, so enumerate here.
    swaps = (np.arange(2**10)[:, None] >> np.arange(10)) & 1
    exchanged = np.where(swaps[:, :, None] == 1, b, a).sum(axis=1), np.where(swaps[:, :, None] == 1, a, b).sum(axis=1)
    found = np.abs(F1.finish(exchanged[0]) - F1.finish(exchanged[1]))
    expected = np.mean(found >= abs(F1.finish(a.sum(0)) - F1.finish(b.sum(0))) - 1e-12)
    assert paired_difference(F1, stat_scores(F1, a), stat_scores(F1, b)).p == pytest.approx(expected)


def test_corpus_difference():
    """The paired bootstrap sees that the two models' surprise rises and falls together."""
    rng = np.random.default_rng(4)
    units = rng.integers(50, 150, 200).astype(float)
    hard = rng.normal(3, 0.5, 200)
    a, b = (np.stack([units * (hard + shift + rng.normal(0, 0.05, 200)), units], axis=1) for shift in (0.0, -0.05))
    found = paired_difference(PERPLEXITY, stat_scores(PERPLEXITY, a), stat_scores(PERPLEXITY, b))
    ra, rb = a[:, 0].sum() / units.sum(), b[:, 0].sum() / units.sum()
    influence = (np.exp(ra) * (a[:, 0] - ra * units) - np.exp(rb) * (b[:, 0] - rb * units)) / units.mean()
    assert found.value == pytest.approx(np.exp(ra) - np.exp(rb))
    assert found.stderr == pytest.approx(np.std(influence, ddof=1) / np.sqrt(200), rel=0.04)
    assert found.interval[0] > 0
    assert found.p < 0.001
    twin = Metric(name="perplexity", finish_rows=lambda rows, weights: float(PERPLEXITY.finish(weights @ rows)))
    rows = paired_difference(twin, stat_scores(twin, a), stat_scores(twin, b))
    assert rows.stderr == pytest.approx(found.stderr, rel=0.08)
    assert rows.p <= 2 / 2001


def test_failures_on_either_side_are_left_out():
    found = paired_difference(ACC, scores(ACC, [1, None, 1, 0]), scores(ACC, [0, 1, None, 0]))
    assert (found.n, found.value, found.a_only) == (2, 0.5, 1)
    nothing = paired_difference(ACC, scores(ACC, [None]), scores(ACC, [1]))
    assert (nothing.n, nothing.value, nothing.p, nothing.interval) == (0, None, None, None)


def test_differences_of_proportions_stay_within_one():
    found = paired_difference(ACC, scores(ACC, [1, 1, 0.5]), scores(ACC, [0, 0, 0]))
    assert (found.method, found.interval[1]) == ("t", 1.0)


def test_one_cluster_has_no_test():
    found = paired_difference(MEAN, scores(MEAN, [1, 2, 4]), scores(MEAN, [0, 0, 0]), clusters=["p"] * 3)
    assert found.value == pytest.approx(7 / 3)
    assert (found.p, found.interval, found.detectable) == (None, None, None)


def test_clusters_widen_the_interval():
    rng = np.random.default_rng(5)
    shift = np.repeat(rng.normal(0, 1, 20), 10)
    a, b = shift + rng.normal(0, 0.3, 200), rng.normal(0, 0.3, 200)
    names = [str(i // 10) for i in range(200)]
    plain = paired_difference(MEAN, scores(MEAN, a), scores(MEAN, b))
    clustered = paired_difference(MEAN, scores(MEAN, a), scores(MEAN, b), clusters=names)
    assert clustered.stderr > 2 * plain.stderr
    assert clustered.stderr == pytest.approx(stats.sem((a - b).reshape(20, 10).mean(axis=1)))
    assert clustered.p > plain.p


def test_clustered_corpus_difference():
    """A mean written as a corpus metric: test and error are those of the clustered mean."""
    mean = Metric(name="m", finish=lambda sums: sums[..., 0] / sums[..., 1])
    rng = np.random.default_rng(7)
    shift = np.repeat(rng.normal(0.3, 1, 40), 5)
    a, b = shift + rng.normal(0, 1, 200), rng.normal(0, 1, 200)
    names = [str(i // 5) for i in range(200)]
    rows = [stat_scores(mean, [(value, 1) for value in column]) for column in (a, b)]
    found = paired_difference(mean, *rows, clusters=names)
    plain = paired_difference(MEAN, scores(MEAN, a), scores(MEAN, b), clusters=names)
    assert (found.num_clusters, found.method) == (40, "clustered paired bootstrap")
    assert found.stderr == pytest.approx(plain.stderr, rel=0.05)
    assert found.p == pytest.approx(plain.p, abs=0.015)
    assert found.interval == pytest.approx(plain.interval, abs=0.05)
    unclustered = paired_difference(mean, *rows)
    assert found.stderr > 1.25 * unclustered.stderr
    assert found.p > unclustered.p + 0.05


def test_detectable_difference_for_proportions():
    """2.8 standard errors with a fifth of the pairs discordant: sqrt(0.2 / 1000) * 2.80."""
    a, b = [1] * 100 + [0] * 100 + [1] * 800, [0] * 100 + [1] * 100 + [1] * 800
    found = paired_difference(ACC, scores(ACC, a), scores(ACC, b))
    assert found.detectable == pytest.approx(2.80 * math.sqrt(0.2 / 1000), rel=0.01)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9), st.sampled_from(["x", "y", None])), min_size=1, max_size=10),
    st.randoms(use_true_random=False),
)
def test_order_and_direction(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    results = []
    for table in (rows, shuffled, [(b, a, c) for a, b, c in rows]):
        a, b, clusters = zip(*table, strict=True)
        results.append(paired_difference(MEAN, scores(MEAN, a), scores(MEAN, b), clusters=clusters, resamples=2000))
    assert results[0] == results[1]
    assert results[0].value == pytest.approx(-results[2].value)
    assert results[0].p == pytest.approx(results[2].p)


def test_pooled_differences():
    rng = np.random.default_rng(6)
    parts = []
    for n in (50, 150):
        a, b = (rng.random(n) < p for p in (0.8, 0.7))
        parts.append(paired_difference(ACC, scores(ACC, a), scores(ACC, b)))
    found = pool_differences(parts, weighting="samples")
    assert found.value == pytest.approx(0.25 * parts[0].value + 0.75 * parts[1].value)
    assert found.stderr == pytest.approx(math.hypot(0.25 * parts[0].stderr, 0.75 * parts[1].stderr))
    assert found.n == 200
    assert found.a_only == parts[0].a_only + parts[1].a_only
    # Exact whatever the difficulty of the tasks: under the null each discordant sample is a fair coin.
    assert (found.test, found.p) == ("mcnemar", mcnemar(found.a_only, found.b_only))
    by_task = pool_differences(parts, weighting="tasks")
    assert by_task.value == pytest.approx((parts[0].value + parts[1].value) / 2)
    assert by_task.test == "pooled t"
    assert by_task.p == pytest.approx(2 * stats.norm.sf(abs(by_task.value) / by_task.stderr), abs=0.01)
    assert pool_differences(parts[:1], weighting="tasks") == parts[0]
    with pytest.raises(ValueError, match="one metric"):
        pool_differences([parts[0], msgspec.structs.replace(parts[1], metric="f1")], weighting="tasks")


def test_pooled_equal_answers():
    part = paired_difference(ACC, scores(ACC, [1, 0, 1, 1]), scores(ACC, [1, 0, 1, 1]))
    found = pool_differences([part, part], weighting="samples")
    assert (found.value, found.p, found.a_only) == (0.0, 1.0, 0)
    assert found.interval[0] < 0 < found.interval[1]
    assert found.detectable > 0
    found = pool_differences([part, part], weighting="tasks")
    assert (found.value, found.p, found.interval, found.detectable) == (0.0, 1.0, None, None)
    nothing = paired_difference(ACC, [], [])
    assert pool_differences([nothing, nothing], weighting="samples").value is None
    assert pool_differences([part, nothing], weighting="samples").value == 0.0
    assert pool_differences([part, nothing], weighting="tasks").p is None


def test_unpaired_scores_are_refused():
    with pytest.raises(ValueError, match="same samples"):
        paired_difference(ACC, scores(ACC, [1, 0]), scores(ACC, [1, 0], first=1))
    with pytest.raises(ValueError, match="same samples"):
        paired_difference(ACC, scores(ACC, [1, 0]), scores(ACC, [1]))
