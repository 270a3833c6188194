"""Half-precision weights: the probe that chooses the packed path works in float32 and leaves no trace."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lydite.engine.head import Head
from lydite.engine.plan import Block
from lydite.engine.probe import in_float32
from lydite.models.causal import load_causal
from tests.tiny import save_tiny


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_bfloat16_is_packed_and_weights_are_as_before(tmp_path, architecture):
    folder = save_tiny(tmp_path, architecture, scale=10)
    model = load_causal(folder, name="tiny", source="tiny", dtype="bfloat16", settings={})
    assert model.info.settings["engine"] == "packed"
    weights = load_file(folder / "model.safetensors")
    parameters = dict(model.scorer.model.named_parameters())
    assert {p.dtype for p in parameters.values()} == {torch.bfloat16}
    for name in weights.keys() & parameters.keys():
        assert torch.equal(parameters[name], weights[name].to(torch.bfloat16)), name


@pytest.mark.parametrize("scale", [1, 3, 10])  # of the weights: a small one leaves a small difference
def test_a_wrong_mask_is_caught_in_bfloat16_too(tmp_path, monkeypatch, scale):
    right = Block.mask
    monkeypatch.setattr(Block, "mask", lambda self: np.tril(np.ones_like(right(self))))  # rows see their siblings
    folder = save_tiny(tmp_path, "llama", scale=scale)
    model = load_causal(folder, name="tiny", source="tiny", dtype="bfloat16", settings={})
    assert model.info.settings["engine"].startswith("plain")


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2"])
def test_the_probe_counts_in_float32_without_a_second_copy_of_the_weights(tmp_path, architecture):
    folder = save_tiny(tmp_path, architecture, scale=10)
    network = load_causal(folder, name="tiny", source="tiny", dtype="bfloat16", settings={}).scorer.model
    ids = torch.arange(1, 9)[None]
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).float()
    with torch.inference_mode(), in_float32(network) as dtype:
        assert dtype == torch.float32
        head = network.get_output_embeddings()
        assert head.weight.dtype == torch.bfloat16
        logits = network(input_ids=ids).logits
        assert logits.dtype == torch.float32
        # Gemma multiplies its embeddings with a factor in their own dtype, so these are rounded once.
        assert (logits - whole(input_ids=ids).logits).abs().mean() < (1e-2 if architecture == "gemma3" else 1e-5)
    assert network(input_ids=ids).logits.dtype == torch.bfloat16
    assert not any("forward" in vars(module) for module in network.modules())


def test_a_network_that_reads_its_layers_weights_itself_keeps_its_head(tmp_path):
    scorer = load_causal(save_tiny(tmp_path, "mamba"), name="tiny", source="tiny", dtype="bfloat16", settings={}).scorer
    assert isinstance(scorer.head, Head)
    assert "never calls its attention function" in scorer.reason
    assert {p.dtype for p in scorer.model.parameters()} == {torch.bfloat16}
