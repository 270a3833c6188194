"""The yardstick: operations that a model needs, against PyTorch's own counter."""

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from lydite.engine.linear import choose_kernel
from lydite.engine.peak import device_peak_bytes, matrix_peak, product_weights
from tests.tiny import CONFIGS, tiny_model


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2", "gpt_neox", "opt"])
def test_operations_are_those_that_pytorch_counts(architecture):
    model, rows = tiny_model(architecture), 16
    body, head = product_weights(model)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(input_ids=torch.arange(rows)[None] + 3, use_cache=False)
    products = {"mm", "addmm"}
    counted = sum(n for op, n in counter.get_flop_counts()["Global"].items() if str(op).split(".")[-1] in products)
    assert 2 * rows * (body + head) == counted
    assert head == model.config.vocab_size * 32


def test_prepacked_weights_count_alike():
    model = tiny_model("llama")
    before = product_weights(model)
    kernel = choose_kernel(model, "onednn")
    assert product_weights(model) == before
    kernel.restore()


def test_mixtures_of_experts_have_no_fixed_number():
    config = transformers.MixtralConfig(**CONFIGS["llama"](64, 32).to_dict() | {"num_local_experts": 2})
    assert product_weights(transformers.AutoModelForCausalLM.from_config(config)) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_peak_is_a_speed(dtype):
    assert 1e6 < matrix_peak(dtype, seconds=0.0, sizes=(128,)) < 1e16
    assert device_peak_bytes("cpu") == 0
