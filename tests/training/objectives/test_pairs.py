"""Next sentence and sentence order: what the segments are to each other, and the loss that transformers computes."""

import numpy as np
import pytest

from lydite.errors import ModelError, UserError
from lydite.training.batch import IGNORE
from lydite.training.objectives import make_objective
from lydite.training.objectives.pairs import shorten
from tests.training.objectives.networks import (
    Sentences,
    batches,
    close,
    network,
    pieces_tokenizer,
    plain,
    same_examples,
    same_loss,
)

CLS, SEP = 4, 5


def segments(objective, index, epoch=0):
    """(first, second, label) with what was masked put back, after checking the row's shape."""
    fields = objective.example(epoch, index).fields
    labels = fields["labels"]
    ids = np.where(labels == IGNORE, fields["input_ids"], labels)
    first_end = int(np.argmax(fields["token_type_ids"] == 1))
    assert (ids[0], ids[first_end - 1], ids[-1]) == (CLS, SEP, SEP)
    assert labels[[0, first_end - 1, -1]].tolist() == [IGNORE] * 3
    assert (np.diff(fields["token_type_ids"]) >= 0).all()
    return ids[1 : first_end - 1], ids[first_end:-1], int(fields["pair"])


def make(kind, documents, seed=0, **settings):
    return make_objective(kind, documents, pieces_tokenizer(), settings, seed)


def positions(documents):
    """Where every five tokens in a row stand; in documents of random tokens they stand only there."""
    return {
        tuple(document[place : place + 5].tolist()): (number, place)
        for number, document in enumerate(documents)
        for place in range(len(document) - 4)
    }


def test_next_sentence():
    documents = Sentences(plain([700] * 60))
    where = positions(documents)
    objective = make("next_sentence", documents, context=128)
    count = objective.num_examples(0)
    labels, lengths = [], []
    for i in range(count):
        first, second, label = segments(objective, i)
        lengths.append(len(first) + len(second) + 3)
        labels.append(label)
        if len(first) < 5 or len(second) < 5:
            continue
        (doc_a, start_a), (doc_b, start_b) = where[tuple(first[:5].tolist())], where[tuple(second[:5].tolist())]
        assert (doc_a == doc_b) == (label == 0)
        assert documents[doc_a][start_a : start_a + len(first)].tolist() == first.tolist()
        assert documents[doc_b][start_b : start_b + len(second)].tolist() == second.tolist()
        if label == 0 and len(first) + len(second) < 125:  # nothing was cut off: they touch
            assert start_b == start_a + len(first)
    assert max(lengths) == 128
    # Rows of one last sentence are random without a choice, at most one a document; the others are tossed.
    assert 0.42 < np.mean(labels) < 0.62
    assert 0.06 < np.mean(np.array(lengths) < 115) < 0.4  # 10% aim at a shorter length, and documents end


def test_half_of_the_pairs_are_random():
    documents = Sentences(plain([26_000] * 2))
    objective = make("next_sentence", documents, context=64, short_seq_prob=0.0)
    labels = [segments(objective, i)[2] for i in range(objective.num_examples(0))]
    assert len(labels) > 900
    assert close(float(np.mean(labels)), 0.5, len(labels))


def test_displaced_sentences_come_again():
    """Every token of a document stands in some first segment or real second one, but for what is cut off."""
    documents = Sentences(plain([300, 300]), every=5)
    objective = make("next_sentence", documents, context=103, short_seq_prob=0.0)
    seen = sum(
        len(first) + (len(second) if label == 0 else 0)
        for first, second, label in (segments(objective, i) for i in range(objective.num_examples(0)))
    )
    assert seen == pytest.approx(600, abs=60)


def test_sentence_order():
    documents = Sentences(plain([5_000] * 8))
    where = positions(documents)
    objective = make("sentence_order", documents, context=64)
    labels = []
    for i in range(objective.num_examples(0)):
        first, second, label = segments(objective, i)
        labels.append(label)
        if len(first) < 5 or len(second) < 5:
            continue
        (doc_a, start_a), (doc_b, start_b) = where[tuple(first[:5].tolist())], where[tuple(second[:5].tolist())]
        assert doc_a == doc_b
        assert (start_a > start_b) == (label == 1)
    assert close(float(np.mean(labels)), 0.5, len(labels))


def test_the_longer_segment_gives_way():
    rng = np.random.default_rng(0)
    fronts = []
    for _ in range(2000):
        first, second = shorten(np.arange(50), np.arange(100, 110), 40, rng)
        assert (len(first), len(second)) == (30, 10)
        assert (np.diff(first) == 1).all()
        fronts.append(first[0])
    assert np.mean(fronts) == pytest.approx(10, abs=0.3)
    first, second = shorten(np.arange(30), np.arange(31), 40, rng)
    assert (len(first), len(second)) == (20, 20)
    first, second = shorten(np.arange(5), np.arange(6), 40, rng)
    assert (len(first), len(second)) == (5, 6)


@pytest.mark.parametrize("kind", ["next_sentence", "sentence_order"])
def test_examples_are_functions_of_their_key(kind):
    documents = Sentences(plain([90, 400, 33, 250]))
    same_examples(lambda seed: make(kind, documents, seed, context=64))


@pytest.mark.parametrize(("kind", "name"), [("next_sentence", "bert_pairs"), ("sentence_order", "albert_pairs")])
def test_the_loss_is_that_of_transformers(kind, name):
    objective = make(kind, Sentences(plain([90, 400, 33, 250])), context=64)
    net = network(name)
    batch = next(batches(objective, 4))
    label = {"bert_pairs": "next_sentence_label", "albert_pairs": "sentence_order_label"}[name]
    theirs = net(**batch.inputs, labels=batch.targets["tokens"], **{label: batch.targets["pair"]}).loss
    loss = objective.loss(net, batch)
    assert loss.parts["pair"].count == 4
    same_loss(net, loss.total(), theirs)


def test_what_does_not_do():
    with pytest.raises(UserError, match="know their sentences"):
        make("next_sentence", plain([50, 60]))
    with pytest.raises(UserError, match="two documents or more"):
        make("next_sentence", Sentences(plain([50])))
    with pytest.raises(UserError, match="no document has two sentences"):
        make("sentence_order", Sentences(plain([5, 6]))).num_examples(0)
    objective = make("next_sentence", Sentences(plain([90, 400])), context=64)
    batch = next(batches(objective, 2))
    with pytest.raises(ModelError, match="BertForPreTraining"):
        objective.loss(network("bert"), batch)
    with pytest.raises(ModelError, match="type_vocab_size = 2"):
        objective.loss(network("bert", type_vocab_size=1), batch)
