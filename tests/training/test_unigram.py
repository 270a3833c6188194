"""The hint that a run has learned no more than how often each token comes."""

import math

import pytest
import torch

from lydite.training.batch import IGNORE, TrainBatch
from lydite.training.start import pretrain
from lydite.training.unigram import Labels
from tests.training.tinyrun import curve, tiny_recipe, write_text


def batch(labels):
    return TrainBatch({}, {"tokens": torch.tensor([labels])}, len(labels), {"tokens": len(labels)})


def test_the_entropy_of_labels_by_hand():
    labels = Labels()
    labels.add([batch([1, 1, IGNORE]), batch([5, 1])])
    labels.add([batch([0, 0, 5, 7])])
    # 1 three times, 0 and 5 twice, 7 once.
    assert labels.entropy() == pytest.approx(3 / 8 * math.log(8 / 3) + 2 * 2 / 8 * math.log(4) + math.log(8) / 8)


def test_the_hint_comes_where_it_should():
    labels = Labels()
    for _ in range(100):
        labels.add([batch([0, 1, 2, 3])])
    assert labels.hint([1.0] * 100) == labels.hint([1.4] * 99) == ""
    assert (
        "1.380, is no better than that of a table which knows only how often each token comes (1.386)"
        in labels.hint([1.38] * 100)
    )
    same = Labels()
    for _ in range(100):
        same.add([batch([3])])
    assert same.hint([0.01] * 100) == ""


def test_a_learning_rate_that_is_too_high_is_hinted_at(tmp_path):
    text = write_text(tmp_path / "text.txt")
    said = []
    for name, rate in (("high", 1.0), ("good", 1e-2)):
        table = {"max_steps": 120, "learning_rate": rate, "schedule": "constant", "explode_factor": 0, "batch_size": 4}
        pretrain(tiny_recipe(text, training=table, save={"every": 200}), tmp_path / name, say=said.append)
    assert len(curve(tmp_path / "good")) == 120
    assert len(said) == 1
    assert "lower the learning rate" in said[0]
