"""Replaced-token detection: the two losses of transformers, honest samples, shared embeddings."""

import numpy as np
import pytest
import torch

from lydite.errors import ModelError, UserError
from lydite.training.batch import IGNORE
from lydite.training.objectives import make_objective
from lydite.training.objectives.replaced import sample
from tests.training.objectives.networks import batches, close, network, pieces_tokenizer, plain, same_examples

MASK = 6


def make(seed=0, **settings):
    documents = plain([100, 30, 55, 70])
    return make_objective("replaced", documents, pieces_tokenizer(), {"context": 64, **settings}, seed)


def test_everything_chosen_is_masked():
    fields = make().example(0, 0).fields
    picked = fields["labels"] != IGNORE
    assert (fields["input_ids"][picked] == MASK).all()
    assert len(fields["chances"]) == picked.sum()


def test_both_losses_are_those_of_transformers():
    objective = make(layout="documents", generator_size=0.5)
    net = network("electra")
    both = objective.wrap(net).eval()
    batch = next(batches(objective, 3))
    loss = objective.loss(both, batch)
    labels, inputs = batch.targets["tokens"], batch.inputs
    output = both.generator(**inputs, labels=labels)
    masked = labels != IGNORE
    probs = output.logits[masked].double().softmax(-1).detach().numpy()
    drawn = [
        int(np.searchsorted(np.cumsum(p), u, side="right"))
        for p, u in zip(probs, batch.targets["chances"].numpy(), strict=True)
    ]
    filled = torch.where(masked, labels, inputs["input_ids"])
    originals = filled.clone()
    filled[masked] = torch.tensor(drawn)
    theirs = net(input_ids=filled, attention_mask=inputs["attention_mask"], labels=(filled != originals).long()).loss
    means = loss.means()
    assert means["generator"] == pytest.approx(output.loss.item(), rel=1e-5)
    assert means["discriminator"] == pytest.approx(theirs.item(), rel=1e-5)
    assert loss.total().item() == pytest.approx(output.loss.item() + 50 * theirs.item(), rel=1e-5)
    assert loss.parts["discriminator"].count == int(inputs["attention_mask"].sum()) == batch.num_tokens
    assert int((filled != originals).sum()) > 0
    loss.total().backward()
    (output.loss + 50 * theirs).backward()
    for name, parameter in both.named_parameters():  # once from each: twice what either gives
        assert parameter.grad is not None, name


def test_no_gradient_reaches_the_generator_through_samples():
    objective = make()
    both = objective.wrap(network("electra"))
    objective.loss(both, next(batches(objective, 2))).parts["discriminator"].sum.backward()
    own = {name for name, p in both.generator.named_parameters() if p.grad is not None}
    assert all(name.startswith("electra.embeddings.") or name == "generator_lm_head.weight" for name in own)


def test_embeddings_are_shared_and_the_generator_is_small():
    net = network("electra", num_attention_heads=4)
    both = make(generator_size=0.25).wrap(net)
    assert both.generator.electra.embeddings is net.electra.embeddings
    assert both.generator.generator_lm_head.weight is net.electra.embeddings.word_embeddings.weight
    config = both.generator.config
    assert (config.hidden_size, config.intermediate_size, config.num_attention_heads) == (8, 12, 1)
    assert config.num_hidden_layers == net.config.num_hidden_layers


def test_samples_follow_the_distribution():
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0, -torch.inf]).expand(40_000, 5)
    chances = torch.rand(40_000, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(sample(logits, chances), minlength=5) / 40_000
    for found, wanted in zip(counts.tolist(), logits[0].softmax(0).tolist(), strict=True):
        assert close(found, wanted, 40_000)


def test_micro_batches_sample_alike():
    objective = make()
    both = objective.wrap(network("electra")).eval()
    examples = [objective.example(0, i) for i in range(3)]
    whole = objective.loss(both, objective.collate(examples)).parts
    single = [objective.loss(both, objective.collate([example])).parts for example in examples]
    for name, part in whole.items():
        assert part.count == sum(parts[name].count for parts in single)
        assert part.sum.item() == pytest.approx(sum(parts[name].sum.item() for parts in single), rel=1e-5)


def test_examples_are_functions_of_their_key():
    same_examples(make)


def test_what_does_not_do():
    with pytest.raises(ModelError, match="trains an ElectraForPreTraining, not BertForMaskedLM"):
        make().wrap(network("bert"))
    with pytest.raises(UserError, match="generator_size"):
        make(generator_size=2)
