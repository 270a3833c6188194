"""Several objectives at once: shares, order, and the pooled loss."""

import itertools

import numpy as np
import pytest

from lydite.errors import UserError
from lydite.training.objectives import Mixture, make_objective
from tests.training.objectives.networks import Tokenizer, corpus, network


def member(lengths, seed=0, **settings):
    return make_objective("causal", corpus(lengths, seed=seed), Tokenizer(), {"context": 16, **settings}, seed)


def make(weights=(7.0, 3.0)):
    return Mixture(
        {"blocks": member([2000]), "packed": member([30, 9, 200, 41], 1, layout="packed")},
        {"blocks": weights[0], "packed": weights[1]},
    )


def test_every_stretch_has_its_shares():
    mixture = make((0.7, 0.3))
    count = mixture.num_examples(0)
    members = [mixture.example(epoch, i).member for epoch in range(3) for i in range(count)]
    for size in (10, 32):
        sums = np.convolve(members, np.ones(size), mode="valid")
        assert np.abs(sums - 0.3 * size).max() <= 1.5
    # A third, which no number of slots is exactly.
    thirds = Mixture(dict(zip("abc", [member([900])] * 3, strict=True)), dict.fromkeys("abc", 1))
    counts = np.bincount([thirds.example(0, i).member for i in range(120)])
    assert counts.tolist() == [40, 40, 40]


def test_each_member_gives_its_own_examples_in_order():
    mixture = make()
    own = {0: [], 1: []}
    for epoch in range(2):
        for i in range(mixture.num_examples(epoch)):
            example = mixture.example(epoch, i)
            own[example.member].append(example.fields["tokens"].tolist())
    for number, single in enumerate(mixture.members):
        count = len(own[number])
        keys = ((epoch, i) for epoch in itertools.count() for i in range(single.num_examples(epoch)))
        wanted = [single.example(*key).fields["tokens"].tolist() for key in itertools.islice(keys, count)]
        assert own[number] == wanted
    again = make()
    assert again.example(1, 5).fields["tokens"].tolist() == mixture.example(1, 5).fields["tokens"].tolist()


def test_the_loss_is_the_mean_over_all_tokens():
    mixture, net = make(), network("gpt2")
    examples = [mixture.example(0, i) for i in range(10)]
    batch = mixture.collate(examples)
    loss = mixture.loss(net, batch)
    assert set(loss.parts) == {"blocks.tokens", "packed.tokens"}
    single = [
        mixture.members[e.member].loss(net, mixture.members[e.member].collate([e])).parts["tokens"] for e in examples
    ]
    total = sum(part.sum.item() for part in single) / sum(part.count for part in single)
    assert loss.total().item() == pytest.approx(total, rel=1e-5)
    assert batch.counts == {"tokens": sum(part.count for part in single)}
    assert batch.num_tokens == sum(example.length for example in examples)


def test_what_does_not_do():
    one = member([200])
    with pytest.raises(UserError, match="a weight for each"):
        Mixture({"a": one}, {"b": 1})
    with pytest.raises(UserError, match="above 0"):
        Mixture({"a": one, "b": one}, {"a": 1, "b": -1})
    with pytest.raises(UserError, match="weight of b is less"):
        Mixture({"a": one, "b": one}, {"a": 1, "b": 1e-6})
    with pytest.raises(UserError, match="carried streams"):
        Mixture({"a": member([200], layout="streams", streams=2)}, {"a": 1})
