"""GGUF files become checkpoints that give the numbers of the model that they were written from."""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file

from lydite.errors import ModelError
from lydite.models import gguf_convert
from lydite.models.gguf_convert import convert_gguf
from tests.models.ggufs import save_gguf

IDS = torch.tensor([[5, 77, 130, 9, 260, 41, 18, 99, 200, 31, 7, 8, 255, 16]])


def convert(tmp_path, architecture, **options):
    # transformers' reader believes that every GPT-2 has 1,024 positions.
    max_tokens = 1024 if architecture == "gpt2" else 128
    model = save_gguf(tmp_path / "tiny.gguf", architecture, scale=3.0, max_tokens=max_tokens, **options)
    out = tmp_path / "out"
    out.mkdir()
    convert_gguf(tmp_path / "tiny.gguf", out)
    return model, out


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gpt2"])
def test_same_numbers_as_the_model_that_was_written(tmp_path, architecture):
    model, out = convert(tmp_path, architecture)
    read = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    wanted = logits(model)
    assert (logits(read) - wanted).abs().max() < 0.01 * wanted.abs().max()  # float16 against float32
    assert type(read) is type(model)


def test_gemma3_like_the_reader_of_transformers(tmp_path):
    # The tiny model's pattern of layers is not one that a GGUF file can state: six layers, the last one full.
    _, out = convert(tmp_path, "gemma3")
    read = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    oracle = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
    assert read.config.layer_types == oracle.config.layer_types
    assert read.config.rope_parameters == oracle.config.rope_parameters
    assert read.config.query_pre_attn_scalar == read.config.head_dim == 8
    for name, values in oracle.state_dict().items():
        wanted = values.half().float() if values.dim() > 1 else values
        assert torch.equal(read.state_dict()[name], wanted), name


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_config_like_the_reader_of_transformers(tmp_path, architecture):
    _, out = convert(tmp_path, architecture)
    read = transformers.AutoConfig.from_pretrained(out).to_dict()
    oracle = transformers.AutoConfig.from_pretrained(tmp_path, gguf_file="tiny.gguf").to_dict()
    for key in oracle.keys() & read.keys() - {
        "dtype",
        "architectures",
        "_name_or_path",
        "unk_token_id",
        "rms_norm_eps",
    }:
        assert read[key] == oracle[key], key


def test_tokenizer_files(tmp_path):
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    _, out = convert(tmp_path, "llama", chat_template=template)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template == template
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 2)
    assert tokenizer.model_max_length == 128
    text = "The quick brown fox 今天 2024\n\n  x"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == 1


def test_a_value_beyond_float16_is_kept_as_float32(tmp_path):
    def change(name, values):
        if name == "blk.0.ffn_up.weight":
            values = values.copy()
            values[3, 5] = 1e6
        return values

    _, out = convert(tmp_path, "qwen2", change=change)
    stored = load_file(out / "model.safetensors")
    assert stored["model.layers.0.mlp.up_proj.weight"].dtype == np.float32
    assert stored["model.layers.0.mlp.up_proj.weight"][3, 5] == 1e6
    assert stored["model.layers.0.mlp.down_proj.weight"].dtype == np.float16


def test_large_models_are_written_in_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_convert, "_SHARD_BYTES", 20_000)
    model, out = convert(tmp_path, "llama")
    assert len(list(out.glob("model-*-of-*.safetensors"))) > 2
    read = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    assert torch.equal(read.state_dict()["model.norm.weight"], model.state_dict()["model.norm.weight"])
    torch.testing.assert_close(logits(read), logits(model), rtol=0.01, atol=0.05)


def refuse(tmp_path, message, architecture="llama", **options):
    save_gguf(tmp_path / "bad.gguf", architecture, **options)
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match=message) as caught:
        convert_gguf(tmp_path / "bad.gguf", tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_missing_tensor_is_refused(tmp_path):
    refuse(tmp_path, "lacks the tensor blk.1.attn_k", change=lambda n, v: None if n == "blk.1.attn_k.weight" else v)


def test_an_unknown_tensor_is_refused(tmp_path):
    refuse(
        tmp_path,
        "unknown tensor rope_freqs",
        add=lambda writer: writer.add_tensor("rope_freqs.weight", np.ones(4, np.float32)),
    )


def test_a_number_that_would_change_answers_is_never_dropped(tmp_path):
    refuse(tmp_path, r"states rope\.scaling\.factor.*original checkpoint", add=lambda w: w.add_rope_scaling_factor(8.0))


@pytest.mark.parametrize("tensor", ["blk.0.ffn_up.weight", "output_norm.weight"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_weights_are_refused(tmp_path, value, tensor):
    def change(name, values):
        return np.full_like(values, value) if name == tensor else values

    refuse(tmp_path, "non-finite", change=change)


def test_an_unknown_cut_of_the_text_is_refused(tmp_path):
    refuse(tmp_path, "pre-tokenizer 'surprise'", pre="surprise")
