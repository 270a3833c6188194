"""Corpus metrics of labels and of numbers, against scikit-learn and scipy."""

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.metrics import f1_score, matthews_corrcoef

from lydite.metrics import labels
from lydite.metrics.labels import confusion, weighted_ranks
from lydite.stats.estimates import estimate
from lydite.types import Score


def sums(gold, said, size):
    """Statistics summed over samples; a prediction of `size` means that no label was read."""
    shares = [None if p == size else [float(p == i) for i in range(size)] for p in said]
    return np.sum([confusion(g, share, size) for g, share in zip(gold, shares, strict=True)], axis=0)


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("unread", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_against_scikit_learn(size, unread, seed):
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, size, 60)
    said = np.where(rng.random(60) < 0.5, gold, rng.integers(0, size + unread, 60))
    total = sums(gold, said, size)
    known = list(range(size))
    assert labels.MCC.finish(total) == pytest.approx(matthews_corrcoef(gold, said), abs=1e-12)
    macro = f1_score(gold, said, labels=known, average="macro", zero_division=0)
    assert labels.MACRO_F1.finish(total) == pytest.approx(macro, abs=1e-12)
    positive = f1_score(gold, said, labels=[1], average="macro", zero_division=0)
    assert labels.F1_POSITIVE.finish(total) == pytest.approx(positive, abs=1e-12)
    acc = float(np.mean(gold == said))
    assert labels.ACC_F1.finish(total) == pytest.approx((acc + positive) / 2, abs=1e-12)
    assert labels.ACC_MACRO_F1.finish(total) == pytest.approx((acc + macro) / 2, abs=1e-12)


@pytest.mark.parametrize("said", [[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2]])
def test_one_answer_for_everything(said):
    gold = [0, 1, 1, 0]
    total = sums(gold, said, 2)
    assert labels.MCC.finish(total) == 0 == matthews_corrcoef(gold, said)
    assert labels.F1_POSITIVE.finish(total) == pytest.approx(2 / 3 if said[0] == 1 else 0)


def test_shared_ties_have_no_correlation_wherever_the_gold_stands():
    for gold in ([0, 0, 0, 1], [1, 1, 1, 0], [0, 1, 0, 1]):
        total = np.sum([confusion(g, [0.5, 0.5], 2) for g in gold], axis=0)
        assert labels.MCC.finish(total) == 0


def test_vectorised_over_leading_axes():
    a, b = sums([0, 1, 1], [0, 1, 0], 2), sums([1, 1, 0], [0, 1, 0], 2)
    for metric in (labels.MCC, labels.F1_POSITIVE, labels.MACRO_F1, labels.ACC_F1, labels.ACC_MACRO_F1):
        both = metric.finish(np.stack([a, b]))
        assert both.shape == (2,)
        assert both == pytest.approx([float(metric.finish(a)), float(metric.finish(b))])


@pytest.mark.parametrize("seed", range(5))
def test_correlations_against_scipy(seed):
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 6, 40) / 1.2
    said = gold + rng.normal(0, 2, 40).round(1)
    weights = rng.integers(0, 4, 40).astype(float)
    drawn = np.repeat(np.arange(40), weights.astype(int))
    rows = np.stack([said, gold], axis=1)
    pearson, spearman = (
        scipy_stats.pearsonr(said[drawn], gold[drawn])[0],
        scipy_stats.spearmanr(said[drawn], gold[drawn])[0],
    )
    assert labels.PEARSON.finish_rows(rows, weights) == pytest.approx(pearson, abs=1e-12)
    assert labels.SPEARMAN.finish_rows(rows, weights) == pytest.approx(spearman, abs=1e-12)
    assert labels.PEARSON_SPEARMAN.finish_rows(rows, weights) == pytest.approx((pearson + spearman) / 2, abs=1e-12)


def test_ranks_by_hand():
    assert weighted_ranks(np.array([10.0, 5.0, 10.0]), np.ones(3)).tolist() == [2.5, 1.0, 2.5]
    assert weighted_ranks(np.array([10.0, 5.0]), np.array([2.0, 3.0])).tolist() == [4.5, 2.0]


def test_a_constant_has_no_correlation_and_no_estimate():
    scores = [Score(sample_id=str(i), metric="pearson", value=0.0, stats=(2.5, float(i))) for i in range(6)]
    assert estimate(labels.PEARSON, scores).value is None
