"""Permutation language modelling: the factorisation, and the loss that transformers computes."""

import numpy as np
import pytest
import torch

from lydite.errors import ModelError
from lydite.training.batch import IGNORE
from lydite.training.objectives import make_objective
from tests.training.objectives.networks import (
    batches,
    close,
    network,
    pieces_tokenizer,
    plain,
    same_examples,
    same_loss,
)


def make(seed=0, lengths=(3000, 400), **settings):
    return make_objective("permutation", plain(list(lengths)), pieces_tokenizer(), {"context": 64, **settings}, seed)


def test_each_target_is_predicted_once_from_those_before_it():
    """The masks spell out one order: the k-th target sees all that is no target, and k - 1 targets."""
    for batch in batches(make(layout="documents", lengths=(100, 40, 64)), 3):
        see = batch.inputs["perm_mask"] == 0
        for row, mapping in enumerate(batch.inputs["target_mapping"]):
            labels = batch.targets["tokens"][row]
            used = mapping.sum(1) == 1
            assert (used == (labels != IGNORE)).all()
            assert mapping[~used].sum() == 0
            places = mapping[used].argmax(1)
            assert len(set(places.tolist())) == len(places)
            assert batch.inputs["input_ids"][row, places].tolist() == labels[used].tolist()
            others = torch.ones(see.shape[1], dtype=torch.bool)
            others[places] = False
            assert see[row][:, others].all()  # what is no target is seen by everyone
            assert not see[row][others][:, places].any()  # and sees no target
            among = see[row][places][:, places]
            assert sorted(among.sum(1).tolist()) == list(range(len(places)))
            assert not (among & among.T).any()
            assert not among.diagonal().any()


def test_one_token_in_six_and_never_a_special_one():
    objective = make(lengths=(60_000, 30_000, 200), context=256)
    chosen = total = 0
    for i in range(objective.num_examples(0)):
        fields = objective.example(0, i).fields
        assert fields["input_ids"][-2:].tolist() == [5, 4]
        targets = fields["order"] >= 0
        assert (fields["input_ids"][targets] > 6).all()
        assert sorted(fields["order"][targets].tolist()) == list(range(int(targets.sum())))
        chosen, total = chosen + int(targets.sum()), total + len(targets) - 2
    assert close(chosen / total, 1 / 6, total)


@pytest.mark.parametrize("layout", ["stream", "documents"])
def test_the_loss_is_that_of_transformers(layout):
    objective = make(layout=layout, lengths=(100, 40, 64))
    net = network("xlnet")
    batch = next(batches(objective, 2))
    same_loss(net, objective.loss(net, batch).total(), net(**batch.inputs, labels=batch.targets["tokens"]).loss)


def test_targets_do_not_leak():
    """Another token at a target changes nothing of its own prediction, nor of those before it in the order."""
    objective = make()
    net = network("xlnet")
    batch = next(batches(objective, 1))
    order = objective.example(0, 0).fields["order"]
    places = batch.inputs["target_mapping"][0].argmax(1)
    middle = int(np.flatnonzero(order == order.max() // 2)[0])
    changed = {**batch.inputs, "input_ids": batch.inputs["input_ids"].clone()}
    changed["input_ids"][0, middle] += 1
    with torch.no_grad():
        moved = (net(**batch.inputs).logits - net(**changed).logits)[0].abs().amax(1)
    used = batch.targets["tokens"][0] != IGNORE
    for place, change in zip(places[used].tolist(), moved[used].tolist(), strict=True):
        assert (change > 0) == (order[place] > order[middle]), place


def test_examples_are_functions_of_their_key():
    same_examples(make)


def test_other_networks_are_refused():
    objective = make()
    with pytest.raises(ModelError, match="XLNet"):
        objective.loss(network("bert"), next(batches(objective, 1)))
