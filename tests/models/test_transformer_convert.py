"""Our Transformer beside transformers' BERT, RoBERTa, GPT-2, Llama, T5 and BART: the same numbers, there and back.

The oracle is transformers. Weights are scaled up so that a wrong mask, position or scale moves the logits visibly, and
every tensor, norms and biases too, is random.
"""

import json

import pytest
import torch
import transformers
from transformers import AutoTokenizer

from lydite.errors import ModelError
from lydite.models import transformer_heads as heads
from lydite.models.own import register
from lydite.models.transformer_config import LyditeTransformerConfig as Config
from lydite.models.transformer_convert import check, export_checkpoint, from_theirs, import_checkpoint, to_theirs
from tests.tiny import tiny_tokenizer

V = 60
BERT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": V}
T5 = {
    "d_model": 32,
    "d_kv": 6,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "vocab_size": V,
} | {"decoder_start_token_id": 0}
BART = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48} | {
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "vocab_size": V,
    "max_position_embeddings": 40,
}
GPT2 = {
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "vocab_size": V,
    "n_positions": 40,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
LLAMA = BERT | {"num_key_value_heads": 2, "max_position_embeddings": 40}
CASES = {
    "bert": ("BertForMaskedLM", BERT),
    "bert-pairs": ("BertForPreTraining", BERT | {"hidden_act": "relu", "type_vocab_size": 3}),
    "bert-labels": ("BertForSequenceClassification", BERT | {"num_labels": 3}),
    "bert-spans": ("BertForQuestionAnswering", BERT),
    "roberta": ("RobertaForMaskedLM", BERT | {"type_vocab_size": 1, "max_position_embeddings": 42}),
    "roberta-labels": ("RobertaForSequenceClassification", BERT | {"num_labels": 3}),
    "roberta-spans": ("RobertaForQuestionAnswering", BERT),
    "gpt2": ("GPT2LMHeadModel", GPT2),
    "gpt2-untied": ("GPT2LMHeadModel", GPT2 | {"tie_word_embeddings": False, "n_inner": 40}),
    "gpt2-unscaled": ("GPT2LMHeadModel", GPT2 | {"scale_attn_weights": False, "activation_function": "gelu"}),
    "llama": ("LlamaForCausalLM", LLAMA),
    "llama-biases": (
        "LlamaForCausalLM",
        LLAMA
        | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "head_dim": 6, "hidden_act": "gelu"}
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    ),
    # transformers' generate sizes its cache by the encoder's layers, so that its T5 must not have more in the decoder
    "t5": ("T5ForConditionalGeneration", T5 | {"num_decoder_layers": 1}),
    "t5-v1.1": ("T5ForConditionalGeneration", T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "t5-gated-relu": (
        "T5ForConditionalGeneration",
        T5
        | {
            "feed_forward_proj": "gated-relu",
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 9,
        },
    ),
    "bart": ("BartForConditionalGeneration", BART | {"scale_embedding": True}),
}


def theirs(case, seed=0):
    """transformers' model of a case with random weights of a size that makes attention sharp."""
    name, settings = CASES[case]
    kind = getattr(transformers, name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(kind.config_class(**settings)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(torch.randn_like(parameter) * 0.3)
                else:
                    scale = 1.5 if parameter.shape[0] in (V, 8, 32) else 0.5
                    scale *= 0.5 if case.startswith("t5") else 1.0  # whose products are not divided by sqrt(C)
                    parameter.copy_(torch.randn_like(parameter) * scale)
        if case == "t5-v1.1":  # transformers' config ties always; weights that differ are left apart
            model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
            model.all_tied_weights_keys.pop("lm_head.weight")
    return model


def batch(config):
    """Two rows of 30 and 21 tokens, padded on the right; pairs where there are segments; decoder tokens where asked."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, V, (2, 30), generator=generator)
    mask = torch.ones_like(ids)
    ids[1, 21:], mask[1, 21:] = 1, 0  # RoBERTa finds its padding by its id
    inputs = {"input_ids": ids, "attention_mask": mask}
    if getattr(config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = (torch.arange(30) >= 11).long().expand(2, -1)
    if config.is_encoder_decoder:
        decoder = torch.randint(3, V, (2, 17), generator=generator)
        inputs |= {"decoder_input_ids": decoder, "decoder_attention_mask": torch.ones_like(decoder)}
        inputs["decoder_attention_mask"][1, 12:] = 0
    return inputs


def logits(model, inputs):
    """Everything that a head says, padding left out."""
    with torch.inference_mode():
        out = model(**inputs)
    mask = inputs.get("decoder_attention_mask", inputs["attention_mask"]).bool()
    names = ("logits", "prediction_logits", "seq_relationship_logits", "start_logits", "end_logits")
    found = [out[name] for name in names if name in out]
    return torch.cat([(x[mask] if x.shape[:2] == mask.shape else x).flatten() for x in found])


def close(ours, expected):
    """Equal to 1e-5 of the spread of the logits, which must be wide enough to show a mistake."""
    assert expected.std() > 0.3
    assert (ours - expected).abs().max() < 1e-5 * max(1.0, float(expected.std()))


@pytest.mark.parametrize("case", CASES)
def test_import_gives_the_numbers_of_transformers(case):
    model = theirs(case)
    inputs = batch(model.config)
    ours = from_theirs(model)
    expected = logits(model, inputs)
    close(logits(ours, inputs), expected)
    if not case.startswith(("gpt2", "llama")):  # decoders never see the padding on their right
        unmasked = inputs | {"attention_mask": torch.ones_like(inputs["attention_mask"])}
        with torch.inference_mode():
            masked, seen = (model(**given)[0] for given in (inputs, unmasked))
        assert not torch.allclose(masked, seen, atol=1e-2)  # the padding would show


@pytest.mark.parametrize("case", CASES)
def test_there_and_back_gives_the_same_bits(case, tmp_path):
    model = theirs(case)
    model.save_pretrained(tmp_path / "theirs")
    before = type(model).from_pretrained(tmp_path / "theirs").state_dict()
    layout = import_checkpoint(tmp_path / "theirs", tmp_path / "ours")
    assert layout == case.split("-")[0]
    export_checkpoint(tmp_path / "ours", tmp_path / "back", layout)
    again, report = type(model).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    after = again.state_dict()
    assert set(before) == set(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    first, last = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("theirs", "back"))
    changed = {key for key in first | last if first.get(key) != last.get(key)}
    assert changed <= {"classifier_dropout", "summary_type", "tie_word_embeddings", "tie_encoder_decoder"}, changed
    close(logits(again.eval(), batch(model.config)), logits(model, batch(model.config)))


def test_half_precision_stays_as_it_is(tmp_path):
    model = theirs("gpt2").to(torch.bfloat16)
    model.save_pretrained(tmp_path / "theirs")
    import_checkpoint(tmp_path / "theirs", tmp_path / "ours")
    register()
    ours = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype="auto")
    assert ours.dtype == torch.bfloat16
    query = ours.model.decoder.blocks[1].attention.query.weight
    assert torch.equal(query, model.transformer.h[1].attn.c_attn.weight[:, :32].T)


@pytest.mark.parametrize("case", ["gpt2", "llama", "t5", "bart"])
def test_generate_writes_what_theirs_writes(case):
    model = theirs(case)
    ours = from_theirs(model)
    ids = torch.randint(3, V, (2, 7), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0  # decoders are padded on the left
    settings = {"max_new_tokens": 8, "min_new_tokens": 8, "pad_token_id": 2, "do_sample": False}
    for more in ({}, {"num_beams": 3}):
        expected = model.generate(ids, attention_mask=mask, **settings, **more)
        assert torch.equal(ours.generate(ids, attention_mask=mask, **settings, **more), expected)


def test_alibi_is_blooms():
    """BLOOM has no layout here (its queries, keys and values are interleaved); its numbers are an oracle all the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        bloom = transformers.BloomForCausalLM(
            transformers.BloomConfig(vocab_size=V, hidden_size=48, n_layer=2, n_head=6)
        ).eval()
        for parameter in bloom.parameters():
            parameter.data.copy_(torch.randn_like(parameter) * (1.0 if parameter.dim() == 1 else 0.4))
    config = Config(
        vocab_size=V,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=6,
        position="alibi",
        norm="layer",
        embedding_norm=True,
        activation="gelu_tanh",
        gated=False,
        attention_bias=True,
        feed_forward_bias=True,
    )
    ours = heads.LyditeTransformerForCausalLM(config).eval()
    weights = {}
    names = {
        "transformer.word_embeddings_layernorm": "model.decoder.embedding_norm",
        "transformer.word_embeddings": "model.decoder.tokens",
        "transformer.ln_f": "model.decoder.norm",
        "transformer.h.": "model.decoder.blocks.",
        "self_attention.dense": "attention.output",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "feed_forward_norm",
        "mlp.dense_h_to_4h": "feed_forward.up",
        "mlp.dense_4h_to_h": "feed_forward.down",
    }
    for key, tensor in bloom.state_dict().items():
        for old, new in names.items():
            key = key.replace(old, new)
        if "query_key_value" in key:
            three = tensor.unflatten(0, (6, 3, 8))  # a head's query, key and value stand together
            for n, part in enumerate(("query", "key", "value")):
                weights[key.replace("self_attention.query_key_value", f"attention.{part}")] = three[:, n].flatten(0, 1)
        else:
            weights[key] = tensor
    ours.load_state_dict(weights)
    inputs = batch(config)
    close(logits(ours, inputs), logits(bloom, inputs))


def test_a_tokenizer_comes_along(tmp_path):
    theirs("llama").save_pretrained(tmp_path / "theirs")
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.save_pretrained(tmp_path / "theirs")
    path = tmp_path / "theirs" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    import_checkpoint(tmp_path / "theirs", tmp_path / "ours")
    register()
    again = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert again("The cat. 今天").input_ids == tokenizer("The cat. 今天").input_ids
    assert again.chat_template == tokenizer.chat_template


@pytest.mark.parametrize(
    ("layout", "settings", "named"),
    [
        ("gpt2", {"position": "learned", "norm": "rms"}, "norm=rms"),
        ("gpt2", {"norm": "layer", "gated": False, "activation": "gelu"}, "position=rotary"),
        ("llama", {"norm": "layer"}, "norm=layer"),
        ("llama", {"gated": False}, "gated=False"),
        ("llama", {"logit_scale": 0.5}, "logit_scale=0.5"),
        ("llama", {"shape": "encoder"}, "shape=encoder"),
        ("bert", {"shape": "encoder", "type_vocab_size": 2}, "norm=rms"),
        ("bert", {"shape": "encoder"}, "segment"),
        ("bert", {"shape": "encoder", "tie_word_embeddings": False}, "tie_word_embeddings"),
        ("roberta", {"shape": "encoder", "type_vocab_size": 1}, "padding token"),
        ("t5", {"shape": "encoder-decoder", "position": "alibi", "activation": "relu"}, "position=alibi"),
        ("t5", {"shape": "encoder-decoder", "position": "relative", "activation": "gelu"}, "gelu"),
        ("bart", {"shape": "encoder-decoder", "position": "learned"}, "position_offset=0"),
        ("opt", {}, "opt"),
    ],
)
def test_what_a_layout_cannot_hold_is_named(layout, settings, named):
    with pytest.raises(ModelError, match=named) as refused:
        check(Config(hidden_size=32, num_attention_heads=4, vocab_size=V, **settings), layout)
    assert "\n" not in str(refused.value)


def test_dropout_and_settings_of_other_positions_never_stand_in_the_way():
    check(Config(hidden_size=32, num_attention_heads=4, relative_num_buckets=8, max_position_embeddings=9), "llama")
    settings = check(Config(hidden_size=32, num_attention_heads=4, dropout=0.1, initializer_range=0.01), "llama")
    assert settings["initializer_range"] == 0.01
    assert settings["attention_dropout"] == 0.0


def test_what_ours_lacks_is_named(tmp_path):
    stretched = LLAMA | {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}
    cases = {
        "rotary positions of type linear": transformers.LlamaForCausalLM(transformers.LlamaConfig(**stretched)),
        "number of the layer": transformers.GPT2LMHeadModel(
            transformers.GPT2Config(**GPT2, scale_attn_by_inverse_layer_idx=True)
        ),
        "activation 'tanh'": transformers.BertForMaskedLM(transformers.BertConfig(**BERT, hidden_act="tanh")),
        "GPT2Model": transformers.GPT2Model(transformers.GPT2Config(**GPT2)),
        "no layout 'opt'": transformers.OPTForCausalLM(
            transformers.OPTConfig(hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=V)
        ),
    }
    for number, (named, model) in enumerate(cases.items()):
        model.save_pretrained(tmp_path / str(number))
        with pytest.raises(ModelError, match=named) as refused:
            import_checkpoint(tmp_path / str(number), tmp_path / "ours")
        assert "\n" not in str(refused.value)
        assert not (tmp_path / "ours").exists()


def test_logits_that_are_moved_are_refused():
    model = theirs("bart")
    model.final_logits_bias += 1
    with pytest.raises(ModelError, match="final_logits_bias"):
        from_theirs(model)


def test_nothing_is_overwritten_and_nothing_is_left_behind(tmp_path):
    model = theirs("gpt2")
    model.save_pretrained(tmp_path / "theirs")
    import_checkpoint(tmp_path / "theirs", tmp_path / "ours")
    with pytest.raises(ModelError, match="exists already"):
        import_checkpoint(tmp_path / "theirs", tmp_path / "ours")
    with pytest.raises(ModelError, match="cannot hold"):
        export_checkpoint(tmp_path / "ours", tmp_path / "llama", "llama")
    with pytest.raises(ModelError, match="not a lydite_transformer"):
        export_checkpoint(tmp_path / "theirs", tmp_path / "new", "gpt2")
    with pytest.raises(ModelError, match=r"no config\.json"):
        import_checkpoint(tmp_path / "none", tmp_path / "new")
    (tmp_path / "ours" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match="cannot be read"):
        export_checkpoint(tmp_path / "ours", tmp_path / "new", "gpt2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "theirs"]


def test_a_fresh_model_of_ours_is_written_too():
    config = Config(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2, vocab_size=V)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ours = heads.LyditeTransformerForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.mul_(20 if parameter.dim() > 1 else 1)
    model = to_theirs(ours, "llama")
    assert isinstance(model, transformers.LlamaForCausalLM)
    inputs = batch(config)
    close(logits(ours, inputs), logits(model, inputs))
