"""Queries, keys and values as one product: each layer answers as alone, and the weights come back."""

import copy
from collections import Counter

import pytest
import torch
import transformers

from lydite.engine.linear import choose_kernel
from lydite.engine.siblings import Group, Pending, SiblingLinear, find_groups
from tests.tiny import tiny_model

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


def kinds(model: torch.nn.Module) -> Counter[str]:
    return Counter(type(module).__name__ for module in model.modules())


@pytest.mark.parametrize(("architecture", "groups"), [("llama", 2), ("qwen2", 2), ("gemma3", None), ("gpt2", 0)])
def test_states_are_as_before_and_weights_come_back(architecture, groups) -> None:
    model = tiny_model(architecture)
    for (
        name,
        parameter,
    ) in model.named_parameters():  # biases, as Qwen 2 has them for these layers alone, begin as zeros
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    ids = torch.arange(40, 60)[None]
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
        kernel = choose_kernel(model, "onednn")
        found = model(input_ids=ids).logits
    number = kinds(model)["SiblingLinear"]
    assert number == 3 * (model.config.num_hidden_layers if groups is None else groups)
    assert torch.allclose(found, expected, atol=1e-5)
    kernel.restore()
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with torch.inference_mode():
        assert torch.equal(model(input_ids=ids).logits, expected)


def test_a_layer_answers_whoever_calls_it() -> None:
    parts = [torch.nn.Linear(6, size, bias=False) for size in (4, 2, 3)]
    calls: list[torch.Tensor] = []

    def joint(rows: torch.Tensor) -> torch.Tensor:
        calls.append(rows)
        return torch.cat([part(rows) for part in parts], dim=-1)

    pending = Pending()
    group = Group(joint, [4, 2, 3], pending)
    layers = [SiblingLinear(part, group, n, lambda part=part: part.weight) for n, part in enumerate(parts)]
    one, other = torch.randn(5, 6), torch.randn(5, 6)
    with torch.inference_mode():
        for number in (0, 2, 1):
            assert torch.equal(layers[number](one), parts[number](one))
        assert len(calls) == 1
        assert (pending.rows, pending.outputs) == (None, {})
        # Other rows in between, a copy of the same ones, and a layer that is asked twice.
        for number, rows in ((0, one), (1, other), (1, one), (1, one), (2, one.clone()), (0, one), (0, one)):
            assert torch.equal(layers[number](rows), parts[number](rows))
        # Another group takes the place of what was left over.
        Group(lambda rows: rows.repeat(1, 2), [6, 6], pending).product(0, other)
        assert pending.rows is other
        assert torch.equal(layers[2](one), parts[2](one))


def test_what_is_no_self_attention_of_one_input_stays_apart() -> None:
    config = transformers.BartConfig(
        vocab_size=99, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16
    )
    model = transformers.AutoModelForSeq2SeqLM.from_config(config)
    linears = {name: module for name, module in model.named_modules() if type(module) is torch.nn.Linear}
    found = [list(group) for group in find_groups(linears)]
    assert found
    assert not any("encoder_attn" in name for group in found for name in group)
    assert len(found) == 2  # of the encoder, and the decoder's own
    uneven = copy.deepcopy(linears)
    [name, *_] = found[0]
    uneven[name] = torch.nn.Linear(uneven[name].in_features, 16, bias=False)
    assert len(list(find_groups(uneven))) == 1


def test_weights_that_cannot_be_one_stay_apart() -> None:
    """float16 holds each of them exactly, but not beside one that is 2^40 times as large."""
    model = tiny_model("llama")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())
        first = model.model.layers[0].self_attn
        first.v_proj.weight.mul_(2.0**40)
        first.o_proj.weight.mul_(2.0**-40)
    ids = torch.arange(40, 60)[None]
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
        kernel = choose_kernel(model, "float16")
        assert kernel.reason == "asked for"  # none of them stays as it was
        assert torch.allclose(model(input_ids=ids).logits, expected, atol=1e-4)
    assert kinds(model)["SiblingLinear"] == 3 * (model.config.num_hidden_layers - 1)
