"""Prepacked linear layers: the same products, undone before training."""

import copy
from pathlib import Path

import pytest
import torch
import transformers

from lydite.engine.linear import Choice, PackedLinear, choose_kernel
from lydite.engine.score import Scorer
from lydite.errors import ModelError
from lydite.models.causal import load_causal
from tests.engine.test_parity import tree_windows
from tests.naive import naive
from tests.tiny import save_tiny, tiny_model

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


@pytest.mark.parametrize("stretch", [None, 5, 100])
@pytest.mark.parametrize("bias", [False, True])
def test_products_and_weights_are_as_before(stretch: int | None, bias: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    linear = torch.nn.Linear(17, 23, bias=bias)
    packed = PackedLinear(linear, stretch)
    rows = torch.randn(2, 9, 17, generator=generator)
    with torch.inference_mode():
        assert torch.allclose(packed(rows), linear(rows), atol=1e-5)
    assert torch.equal(packed.weight_as_it_was(), linear.weight)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt_neox"])
def test_scores_with_prepacked_weights_equal_the_naive_loop(architecture: str) -> None:
    model = tiny_model(architecture, scale=10.0)
    scorer = Scorer(copy.deepcopy(model), batch_tokens=64)
    scorer.use_kernel("onednn")
    assert scorer.kernel.name == "onednn"
    assert isinstance(scorer.head.module, PackedLinear)
    windows = tree_windows()
    packed = dict(scorer.score(windows))
    for index, asked in enumerate(windows):
        assert packed[index].logprobs == pytest.approx(naive(model, asked.ids, asked.first)[0], abs=3e-4)


@pytest.mark.parametrize("layout", ["onednn", "float16"])
@pytest.mark.parametrize("architecture", ["mamba", "deberta"])
def test_networks_that_compute_with_weights_beside_their_layers(architecture: str, layout: Choice) -> None:
    """Mamba's steps multiply by the weight of a layer, DeBERTa's newer head by that of the embedding."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    deberta = transformers.DebertaV2Config(**sizes, vocab_size=320, type_vocab_size=0, legacy=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        other = transformers.AutoModelForMaskedLM.from_config(deberta)
    model = tiny_model("mamba") if architecture == "mamba" else other.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((4 * parameter).to(torch.bfloat16).float())
    ids = torch.arange(40, 60)[None]
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
        assert choose_kernel(model, layout).name == layout
        assert torch.allclose(model(input_ids=ids).logits, expected, atol=2e-3)


def test_an_absent_weight_says_what_it_was_like_and_is_made_for_whoever_computes_with_it() -> None:
    linear = torch.nn.Linear(7, 5)
    weight, rows = PackedLinear(linear, 2).weight, torch.randn(3, 7)
    assert isinstance(weight, torch.Tensor)
    assert (weight.dtype, weight.device, weight.shape, weight.size(0), len(weight), weight.ndim) == (
        (torch.float32, torch.device("cpu"), (5, 7), 5, 5, 2)
    )
    for found in (rows @ weight.t(), rows @ weight.T, torch.nn.functional.linear(rows, weight), (weight @ rows.T).T):
        assert type(found) is torch.Tensor
        assert torch.allclose(found, rows @ linear.weight.T)
    assert torch.equal(torch.cat([weight, weight])[5:], linear.weight)


def test_no_weight_is_held_twice_and_ties_survive() -> None:
    for architecture, tied in (("llama", False), ("gemma3", True)):
        model = tiny_model(architecture)
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}
        kernel = choose_kernel(model, "onednn")
        left = dict(model.named_parameters())
        assert not any("proj" in name for name in left)
        assert "model.embed_tokens.weight" in left
        assert "lm_head.weight" not in left
        kernel.restore()
        after = dict(model.named_parameters())
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied


def test_a_model_trains_after_scoring() -> None:
    """Gradients after scoring with prepacked weights equal those of a model that never scored."""
    fresh = tiny_model("llama")
    used = copy.deepcopy(fresh)
    scorer = Scorer(used, batch_tokens=64)
    scorer.use_kernel("onednn")
    dict(scorer.score(tree_windows(count=3)))
    scorer.restore()
    ids = torch.arange(20)[None]
    for model in (fresh, used):
        model.train()
        model(input_ids=ids, labels=ids).loss.backward()
    ours, theirs = dict(used.named_parameters()), dict(fresh.named_parameters())
    assert all(parameter.grad is not None for parameter in ours.values())
    assert all(torch.allclose(ours[name].grad, theirs[name].grad, atol=1e-6) for name in theirs)
    dict(scorer.score(tree_windows(count=3)))


def test_the_default_can_be_asked_for() -> None:
    model = tiny_model("llama")
    assert choose_kernel(model, "default").name == "default"
    assert choose_kernel(tiny_model("gpt2"), "auto").name in ("default", "onednn")
    assert choose_kernel(model, "auto").name in ("default", "onednn")  # its weights are no float16 numbers


def stored_in(model: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """The model in float32 with weights as a checkpoint of `dtype` would give them."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype).float())
    return model


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_half_the_memory_loses_nothing(architecture: str, dtype: torch.dtype) -> None:
    """Scores within float32's rounding of the naive loop, and the weights come back bit for bit, the smallest ones too."""
    model = stored_in(tiny_model(architecture, scale=10.0), dtype)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, :3] = torch.tensor([1e-30, -3e-9, 0.0]).to(dtype).float()  # type: ignore[union-attr,operator,index]
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    scorer = Scorer(copy.deepcopy(model), batch_tokens=64)  # type: ignore[arg-type]
    scorer.use_kernel("float16")
    assert scorer.kernel.name == "float16"
    assert scorer.kernel.reason == "asked for"
    windows = tree_windows()
    ours = dict(scorer.score(windows))
    for index, asked in enumerate(windows):
        assert ours[index].logprobs == pytest.approx(naive(model, asked.ids, asked.first)[0], abs=1e-4)  # type: ignore[arg-type]
    scorer.restore()
    after = dict(scorer.model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_weights_that_float16_cannot_hold_stay_as_they_are() -> None:
    with pytest.raises(ValueError, match="without loss"):
        PackedLinear(torch.nn.Linear(17, 23), layout="float16")
    small = torch.nn.Linear(17, 23)
    small.weight.data.fill_(2.0**-130)
    with pytest.raises(ValueError, match="too small"):
        PackedLinear(small, layout="float16")
    assert choose_kernel(tiny_model("llama"), "float16").name == "default"
    model = stored_in(tiny_model("llama"), torch.float16)
    torch.nn.init.normal_(model.model.layers[0].mlp.up_proj.weight)  # type: ignore[union-attr,arg-type]
    kernel = choose_kernel(model, "float16")  # type: ignore[arg-type]
    assert kernel.name == "float16"
    assert "1 of" in kernel.reason


def test_parameters_are_counted_before_a_kernel_takes_them(tmp_path):
    folder = save_tiny(tmp_path, "llama")
    counts = {
        kernel: load_causal(folder, name="tiny", source="tiny", settings={"kernel": kernel}).info.parameters
        for kernel in ("default", "onednn")
    }
    assert counts["onednn"] == counts["default"]


def test_bfloat16_products_move_numbers_a_little_and_are_named(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "llama", scale=4.0)
    plain = load_causal(folder, name="t", source="t", settings={"kernel": "default"})
    low = load_causal(folder, name="t", source="t", settings={"kernel": "bfloat16"})
    assert low.info.settings["products"] == "bfloat16"
    assert "products" not in plain.info.settings
    assert low.scorer.head.module.weight_as_it_was().dtype == torch.float32  # type: ignore[operator]
    windows = tree_windows()
    ours, theirs = dict(low.scorer.score(windows)), dict(plain.scorer.score(windows))
    differences = [abs(ours[i].logprobs - theirs[i].logprobs).max() for i in theirs]
    assert 1e-6 < max(differences) < 1.0
    with pytest.raises(ModelError, match="kernel=default"):
        low.network()
    assert choose_kernel(tiny_model("llama"), "fastest").name in ("default", "onednn", "bfloat16")
