"""Which weights get which optimizer and decay, and that masters hold what bfloat16 cannot."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from lydite.training.optimizers import Optimizers, Weights
from lydite.training.recipe import TrainingTable


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, n_positions=8, vocab_size=11))


def groups(**options):
    network = gpt2()
    weights = Weights(network, masters=False)
    made = Optimizers(weights, network, TrainingTable(max_steps=1, batch_size=1, **options))
    return {
        made.names[id(weight)]: (type(part).__name__, group["weight_decay"])
        for part in made.parts
        for group in part.param_groups
        for weight in group["params"]
    }


def test_decay_is_for_matrices():
    found = groups(weight_decay=0.1)
    assert found["transformer.h.0.attn.c_attn.weight"] == ("AdamW", 0.1)
    assert found["transformer.wte.weight"] == ("AdamW", 0.1)
    assert found["transformer.h.0.attn.c_attn.bias"] == found["transformer.ln_f.weight"] == ("AdamW", 0.0)
    assert groups(decay_embeddings=False)["transformer.wte.weight"] == ("AdamW", 0.0)
    assert len(found) == len(list(gpt2().parameters()))


def test_muon_moves_the_matrices_inside():
    found = groups(optimizer="muon", weight_decay=0.1)
    assert {name for name, (kind, _) in found.items() if kind == "Muon"} == {
        f"transformer.h.0.{name}.weight" for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    assert found["transformer.wte.weight"] == ("AdamW", 0.1)


def moved(network, weights, made):
    """One update with gradients that are always the same."""
    generator = torch.Generator().manual_seed(1)
    for weight in weights.named.values():
        weight.grad = torch.randn(weight.shape, generator=generator)
    made.step(1e-2)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
def test_state_goes_into_tensors_and_back(optimizer):
    table = TrainingTable(max_steps=1, batch_size=1, optimizer=optimizer)
    both = []
    for network in (gpt2(), gpt2()):
        weights = Weights(network, masters=False)
        both.append((network, weights, Optimizers(weights, network, table)))
    (_, weights, made), (_, other_weights, other) = both
    moved(*both[0])
    other_weights.load({key: value.detach().clone() for key, value in weights.named.items()})
    other.load({key: value.clone() for key, value in made.tensors().items()})
    for each in both:
        moved(*each)
    for key, value in weights.named.items():
        assert torch.equal(value, other_weights.named[key]), key


def test_masters_keep_small_updates():
    """Steps of 1e-4 on a weight of 1 are lost in bfloat16 and not in its master."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.ones_(layer.weight)
    weights = Weights(layer, masters=True)
    assert layer.weight.dtype == torch.bfloat16
    made = Optimizers(weights, layer, TrainingTable(max_steps=1, batch_size=1, weight_decay=0.0))
    for _ in range(100):
        layer(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        weights.collect()
        assert layer.weight.grad is None
        made.step(1e-4)
        weights.publish()
        weights.zero_grad()
    assert abs(weights.named["weight"].item() - 0.99) < 1e-4
    assert abs(layer.weight.item() - 0.99) < 4e-3
