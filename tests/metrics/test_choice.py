"""Choice metrics against scipy, scikit-learn and numpy's argmax."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from scipy.special import softmax as scipy_softmax
from sklearn.metrics import accuracy_score, brier_score_loss

from lydite.metrics import choice

LOGPROBS = st.lists(st.floats(-300, 0, allow_nan=False), min_size=2, max_size=8)


@given(LOGPROBS)
def test_softmax_is_scipys(values):
    assert choice.softmax(values) == pytest.approx(scipy_softmax(values), abs=1e-12)


def test_brier_is_scikit_learns():
    rng = np.random.default_rng(3)
    logits = log_softmax(rng.normal(size=(50, 4)) * 3, axis=1)
    gold = rng.integers(0, 4, size=50)
    ours = [choice.brier(choice.softmax(row), [g]) for row, g in zip(logits.tolist(), gold.tolist(), strict=True)]
    theirs = brier_score_loss(gold, np.exp(logits), labels=[0, 1, 2, 3], scale_by_half=False)
    assert np.mean(ours) == pytest.approx(theirs, abs=1e-12)


def test_accuracy_without_ties_is_argmax():
    rng = np.random.default_rng(4)
    values = rng.normal(size=(200, 5))
    gold = rng.integers(0, 5, size=200)
    ours = [choice.accuracy(row, [g]) for row, g in zip(values.tolist(), gold.tolist(), strict=True)]
    assert set(ours) == {0.0, 1.0}
    assert np.mean(ours) == accuracy_score(gold, values.argmax(1))


@pytest.mark.parametrize(
    ("values", "gold", "share"),
    [
        ([-1.0, -1.0], [0], 1 / 2),
        ([-1.0, -1.0], [1], 1 / 2),
        ([-2.0, -1.0, -1.0, -1.0], [1], 1 / 3),
        ([-2.0, -1.0, -1.0, -1.0], [0], 0.0),
        ([-2.0, -1.0, -1.0, -1.0], [1, 3], 2 / 3),
        ([-1.0, -1.0 - 1e-12], [1], 1 / 2),
        ([-1.0, -1.0 - 1e-6], [1], 0.0),
    ],
)
def test_ties_are_shared(values, gold, share):
    assert choice.accuracy(values, gold) == pytest.approx(share)


def test_margin_is_signed_and_takes_the_best_of_several_golds():
    assert choice.margin([-1.0, -3.0, -2.5], [0]) == pytest.approx(1.5)
    assert choice.margin([-1.0, -3.0, -2.5], [2]) == pytest.approx(-1.5)
    assert choice.margin([-1.0, -3.0, -2.5], [1, 2]) == pytest.approx(-1.5)


@pytest.mark.parametrize(("size", "gold"), [(2, [0]), (4, [3]), (5, [1, 4])])
def test_guessing_is_what_even_probabilities_get(size, gold):
    chance = choice.guessing(size, len(gold))
    assert chance["brier"] == pytest.approx(choice.brier([1 / size] * size, gold))
    assert chance["acc"] == pytest.approx(choice.accuracy([-1.0] * size, gold))
