"""How BERT, RoBERTa, GPT-2, Llama, T5 and BART call the settings and weights that our Transformer calls by one name each.

A layout is a table of names and two functions between configs; transformer_convert.py does the work with them. In the
tables `#` stands for the number of a block and `[0]` .. `[2]` for the thirds of a matrix that holds queries, keys and
values side by side.

Contract: `ours` raises ModelError for what our Transformer lacks; what `theirs` cannot say is found by turning its answer
back into ours (see transformer_convert.check), so neither of the two drops a setting in silence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lydite.errors import ModelError
from lydite.models.transformer_config import LyditeTransformerConfig as Config

Settings = dict[str, Any]
_ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
}
_THEIR_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_tanh": "gelu_new", "silu": "silu"}


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to store a Transformer."""

    config: str
    """transformers' class of its configs."""
    classes: Mapping[str, str]
    """How our classes end -> theirs."""
    ours: Callable[[Any], Settings]
    theirs: Callable[[Config], Settings]
    names: Callable[[Config], dict[str, str]]
    """Our modules -> theirs."""
    turned: tuple[str, ...] = ()
    """Their modules whose weights are stored [in, out]."""
    zero: tuple[str, ...] = ()
    """Their tensors that must be zero, because ours has none of the kind."""


def _refuse(unsupported: Mapping[str, bool]) -> None:
    for what, there in unsupported.items():
        if there:
            raise ModelError(f"lydite_transformer has no {what}, so this checkpoint cannot be read into it")


def _activation(name: str) -> str:
    if name not in _ACTIVATIONS:
        raise ModelError(f"lydite_transformer has no activation {name!r}; it has {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _blocks(stack: str, theirs: str, names: Mapping[str, str]) -> dict[str, str]:
    return {f"model.{stack}.blocks.#.{ours}": f"{theirs}.#.{name}" for ours, name in names.items()}


def _attention(ours: str, theirs: str, letters: tuple[str, str, str, str]) -> dict[str, str]:
    parts = ("query", "key", "value", "output")
    return {f"{ours}.{part}": f"{theirs}.{letter}" for part, letter in zip(parts, letters, strict=True)}


_SIMPLE = {"num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size"}


def _shared(theirs: Any) -> Settings:
    """Settings that all configs of transformers call the same."""
    return {name: getattr(theirs, name) for name in sorted(_SIMPLE)}


# -------------------------------------------------------------------------------------- BERT and RoBERTa


def _bert_ours(theirs: Any) -> Settings:
    _refuse(
        {
            "decoder made of BERT": theirs.is_decoder or theirs.add_cross_attention,
            "relative positions of BERT": getattr(theirs, "position_embedding_type", "absolute") != "absolute",
        }
    )
    return _shared(theirs) | {
        "shape": "encoder",
        "intermediate_size": theirs.intermediate_size,
        "position": "learned",
        "max_position_embeddings": theirs.max_position_embeddings,
        "type_vocab_size": theirs.type_vocab_size,
        "norm": "layer",
        "norm_place": "post",
        "norm_eps": theirs.layer_norm_eps,
        "embedding_norm": True,
        "activation": _activation(theirs.hidden_act),
        "gated": False,
        "attention_bias": True,
        "feed_forward_bias": True,
        "dropout": theirs.hidden_dropout_prob,
        "attention_dropout": theirs.attention_probs_dropout_prob,
        "initializer_range": theirs.initializer_range,
    }


def _bert_theirs(ours: Config) -> Settings:
    if not ours.tie_word_embeddings:
        raise ModelError("BERT's layout ties the output head to the token embeddings; tie_word_embeddings is off here")
    if not ours.type_vocab_size:
        raise ModelError("BERT's layout has segment embeddings; type_vocab_size is 0 here")
    return {name: getattr(ours, name) for name in sorted(_SIMPLE)} | {
        "intermediate_size": ours.intermediate_size,
        "max_position_embeddings": ours.max_position_embeddings,
        "type_vocab_size": ours.type_vocab_size,
        "layer_norm_eps": ours.norm_eps,
        "hidden_act": _THEIR_ACTIVATIONS[ours.activation],
        "hidden_dropout_prob": ours.dropout,
        "attention_probs_dropout_prob": ours.attention_dropout,
        "initializer_range": ours.initializer_range,
    }


def _roberta_ours(theirs: Any) -> Settings:
    ours = _bert_ours(theirs)
    if ours["activation"] != "gelu":
        raise ModelError("RoBERTa's masked-LM head always has gelu, so hidden_act must be gelu too")
    offset = theirs.pad_token_id + 1
    return ours | {"position_offset": offset, "max_position_embeddings": theirs.max_position_embeddings - offset}


def _roberta_theirs(ours: Config) -> Settings:
    pad = ours.position_offset - 1
    if pad < 0 or ours.pad_token_id not in (None, pad):
        raise ModelError("RoBERTa's positions start after its padding token: position_offset must be pad_token_id + 1")
    longest = (ours.max_position_embeddings or 0) + ours.position_offset
    return _bert_theirs(ours) | {"max_position_embeddings": longest, "pad_token_id": pad}


def _bert_names(prefix: str) -> dict[str, str]:
    block = {
        **{f"attention.{part}": f"attention.self.{part}" for part in ("query", "key", "value")},
        "attention.output": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "feed_forward.up": "intermediate.dense",
        "feed_forward.down": "output.dense",
        "feed_forward_norm": "output.LayerNorm",
    }
    return {
        "model.encoder.tokens": f"{prefix}.embeddings.word_embeddings",
        "model.encoder.positions": f"{prefix}.embeddings.position_embeddings",
        "model.encoder.segments": f"{prefix}.embeddings.token_type_embeddings",
        "model.encoder.embedding_norm": f"{prefix}.embeddings.LayerNorm",
        **_blocks("encoder", f"{prefix}.encoder.layer", block),
        "spans": "qa_outputs",
    }


_BERT = {
    **_bert_names("bert"),
    "head.dense": "cls.predictions.transform.dense",
    "head.norm": "cls.predictions.transform.LayerNorm",
    "head.decoder": "cls.predictions.decoder",
    "pooler.dense": "bert.pooler.dense",
    "next_sentence": "cls.seq_relationship",
    "classifier": "classifier",
}
_ROBERTA = {
    **_bert_names("roberta"),
    "head.dense": "lm_head.dense",
    "head.norm": "lm_head.layer_norm",
    "head.decoder": "lm_head.decoder",
    "pooler.dense": "classifier.dense",
    "classifier": "classifier.out_proj",
}

# --------------------------------------------------------------------------------------- GPT-2 and Llama


def _gpt2_ours(theirs: Any) -> Settings:
    _refuse(
        {
            "cross-attention in a decoder alone": theirs.add_cross_attention,
            "attention scaled by the number of the layer": theirs.scale_attn_by_inverse_layer_idx,
        }
    )
    return _shared(theirs) | {
        "shape": "decoder",
        "intermediate_size": theirs.n_inner or 4 * theirs.n_embd,
        "attention_scale": None if theirs.scale_attn_weights else 1.0,
        "position": "learned",
        "max_position_embeddings": theirs.n_positions,
        "norm": "layer",
        "norm_eps": theirs.layer_norm_epsilon,
        "activation": _activation(theirs.activation_function),
        "gated": False,
        "attention_bias": True,
        "feed_forward_bias": True,
        "dropout": theirs.resid_pdrop,
        "attention_dropout": theirs.attn_pdrop,
        "initializer_range": theirs.initializer_range,
    }


def _gpt2_theirs(ours: Config) -> Settings:
    return {name: getattr(ours, name) for name in sorted(_SIMPLE)} | {
        "n_inner": None if ours.intermediate_size == 4 * ours.hidden_size else ours.intermediate_size,
        "scale_attn_weights": ours.attention_scale is None,
        "n_positions": ours.max_position_embeddings,
        "layer_norm_epsilon": ours.norm_eps,
        "activation_function": _THEIR_ACTIVATIONS[ours.activation],
        "resid_pdrop": ours.dropout,
        "embd_pdrop": ours.dropout,
        "attn_pdrop": ours.attention_dropout,
        "initializer_range": ours.initializer_range,
    }


_GPT2 = {
    "model.decoder.tokens": "transformer.wte",
    "model.decoder.positions": "transformer.wpe",
    **_blocks(
        "decoder",
        "transformer.h",
        {
            **_attention("attention", "attn", ("c_attn[0]", "c_attn[1]", "c_attn[2]", "c_proj")),
            "attention_norm": "ln_1",
            "feed_forward.up": "mlp.c_fc",
            "feed_forward.down": "mlp.c_proj",
            "feed_forward_norm": "ln_2",
        },
    ),
    "model.decoder.norm": "transformer.ln_f",
    "lm_head": "lm_head",
}


def _llama_ours(theirs: Any) -> Settings:
    rope = theirs.rope_parameters
    _refuse({f"rotary positions of type {rope['rope_type']}": rope["rope_type"] != "default"})
    same = ("intermediate_size", "num_key_value_heads", "head_dim", "max_position_embeddings", "attention_bias")
    return (
        _shared(theirs)
        | {name: getattr(theirs, name) for name in (*same, "attention_dropout", "initializer_range")}
        | {
            "shape": "decoder",
            "position": "rotary",
            "rope_theta": rope["rope_theta"],
            "norm": "rms",
            "norm_eps": theirs.rms_norm_eps,
            "activation": _activation(theirs.hidden_act),
            "gated": True,
            "feed_forward_bias": theirs.mlp_bias,
        }
    )


def _llama_theirs(ours: Config) -> Settings:
    same = ("intermediate_size", "num_key_value_heads", "head_dim", "attention_bias", "attention_dropout")
    return {name: getattr(ours, name) for name in (*sorted(_SIMPLE), *same, "initializer_range")} | {
        "max_position_embeddings": ours.max_position_embeddings or 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": ours.rope_theta},
        "rms_norm_eps": ours.norm_eps,
        "hidden_act": _THEIR_ACTIVATIONS[ours.activation],
        "mlp_bias": ours.feed_forward_bias,
    }


_LLAMA = {
    "model.decoder.tokens": "model.embed_tokens",
    **_blocks(
        "decoder",
        "model.layers",
        {
            **_attention("attention", "self_attn", ("q_proj", "k_proj", "v_proj", "o_proj")),
            "attention_norm": "input_layernorm",
            "feed_forward.gate": "mlp.gate_proj",
            "feed_forward.up": "mlp.up_proj",
            "feed_forward.down": "mlp.down_proj",
            "feed_forward_norm": "post_attention_layernorm",
        },
    ),
    "model.decoder.norm": "model.norm",
    "lm_head": "lm_head",
}

# ------------------------------------------------------------------------------------------ T5 and BART


def _t5_ours(theirs: Any) -> Settings:
    return _shared(theirs) | {
        "shape": "encoder-decoder",
        "decoder_layers": theirs.num_decoder_layers,
        "intermediate_size": theirs.d_ff,
        "head_dim": theirs.d_kv,
        "attention_scale": 1.0,
        "position": "relative",
        "max_position_embeddings": None,
        "relative_num_buckets": theirs.relative_attention_num_buckets,
        "relative_max_distance": theirs.relative_attention_max_distance,
        "norm": "rms",
        "norm_eps": theirs.layer_norm_epsilon,
        "activation": _activation(theirs.dense_act_fn),
        "gated": theirs.is_gated_act,
        "logit_scale": theirs.d_model**-0.5 if theirs.scale_decoder_outputs else 1.0,
        "dropout": theirs.dropout_rate,
        "attention_dropout": theirs.dropout_rate,
    }


def _t5_theirs(ours: Config) -> Settings:
    if ours.activation == "gelu" and ours.gated:
        raise ModelError("the t5 layout reads gated-gelu as gelu_tanh, so a gated exact gelu has no name in it")
    activation = "gelu" if ours.activation == "gelu_tanh" and ours.gated else _THEIR_ACTIVATIONS[ours.activation]
    return {
        "vocab_size": ours.vocab_size,
        "d_model": ours.hidden_size,
        "d_kv": ours.head_dim,
        "d_ff": ours.intermediate_size,
        "num_layers": ours.num_hidden_layers,
        "num_decoder_layers": ours.decoder_layers,
        "num_heads": ours.num_attention_heads,
        "relative_attention_num_buckets": ours.relative_num_buckets,
        "relative_attention_max_distance": ours.relative_max_distance,
        "layer_norm_epsilon": ours.norm_eps,
        "feed_forward_proj": f"gated-{activation}" if ours.gated else activation,
        "dropout_rate": ours.dropout,
        "tie_word_embeddings": ours.logit_scale != 1.0,  # which this config reads as: logits are scaled
    }


def _t5_names(ours: Config) -> dict[str, str]:
    wide = {"feed_forward.gate": "wi_0", "feed_forward.up": "wi_1"} if ours.gated else {"feed_forward.up": "wi"}
    names = {"model.encoder.tokens": "shared", "lm_head": "lm_head"}
    for stack, last in (("encoder", 1), ("decoder", 2)):
        feed_forward = {**wide, "feed_forward.down": "wo"}
        block = {
            **_attention("attention", "layer.0.SelfAttention", ("q", "k", "v", "o")),
            "attention_norm": "layer.0.layer_norm",
            **_attention("cross_attention", "layer.1.EncDecAttention", ("q", "k", "v", "o")),
            "cross_attention_norm": "layer.1.layer_norm",
            **{key: f"layer.{last}.DenseReluDense.{name}" for key, name in feed_forward.items()},
            "feed_forward_norm": f"layer.{last}.layer_norm",
        }
        names |= _blocks(stack, f"{stack}.block", block)
        names[f"model.{stack}.distances"] = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"
        names[f"model.{stack}.norm"] = f"{stack}.final_layer_norm"
    return names


def _bart_ours(theirs: Any) -> Settings:
    _refuse(
        {
            "other number of heads in the decoder": theirs.encoder_attention_heads != theirs.decoder_attention_heads,
            "other feed-forward width in the decoder": theirs.encoder_ffn_dim != theirs.decoder_ffn_dim,
        }
    )
    return _shared(theirs) | {
        "shape": "encoder-decoder",
        "num_hidden_layers": theirs.encoder_layers,
        "decoder_layers": theirs.decoder_layers,
        "intermediate_size": theirs.encoder_ffn_dim,
        "position": "learned",
        "max_position_embeddings": theirs.max_position_embeddings,
        "position_offset": 2,
        "norm": "layer",
        "norm_place": "post",
        "norm_eps": 1e-5,
        "embedding_norm": True,
        "activation": _activation(theirs.activation_function),
        "gated": False,
        "attention_bias": True,
        "feed_forward_bias": True,
        "embedding_scale": theirs.d_model**0.5 if theirs.scale_embedding else 1.0,
        "dropout": theirs.dropout,
        "attention_dropout": theirs.attention_dropout,
        "initializer_range": theirs.init_std,
    }


def _bart_theirs(ours: Config) -> Settings:
    return {
        "vocab_size": ours.vocab_size,
        "d_model": ours.hidden_size,
        "encoder_layers": ours.num_hidden_layers,
        "decoder_layers": ours.decoder_layers,
        "encoder_attention_heads": ours.num_attention_heads,
        "decoder_attention_heads": ours.num_attention_heads,
        "encoder_ffn_dim": ours.intermediate_size,
        "decoder_ffn_dim": ours.intermediate_size,
        "max_position_embeddings": ours.max_position_embeddings,
        "activation_function": _THEIR_ACTIVATIONS[ours.activation],
        "scale_embedding": ours.embedding_scale != 1.0,
        "dropout": ours.dropout,
        "attention_dropout": ours.attention_dropout,
        "init_std": ours.initializer_range,
    }


def _bart_names(ours: Config) -> dict[str, str]:
    names = {"model.encoder.tokens": "model.shared", "lm_head": "lm_head"}
    for stack in ("encoder", "decoder"):
        block = {
            **_attention("attention", "self_attn", ("q_proj", "k_proj", "v_proj", "out_proj")),
            "attention_norm": "self_attn_layer_norm",
            **_attention("cross_attention", "encoder_attn", ("q_proj", "k_proj", "v_proj", "out_proj")),
            "cross_attention_norm": "encoder_attn_layer_norm",
            "feed_forward.up": "fc1",
            "feed_forward.down": "fc2",
            "feed_forward_norm": "final_layer_norm",
        }
        names |= _blocks(stack, f"model.{stack}.layers", block)
        names[f"model.{stack}.positions"] = f"model.{stack}.embed_positions"
        names[f"model.{stack}.embedding_norm"] = f"model.{stack}.layernorm_embedding"
    return names


_ENCODERS = ("ForMaskedLM", "ForSequenceClassification", "ForQuestionAnswering")
_TURNED = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
_SEQ2SEQ = "ForConditionalGeneration"
LAYOUTS = {
    "bert": Layout(
        "BertConfig",
        {end: f"Bert{end}" for end in (*_ENCODERS, "ForPreTraining")},
        _bert_ours,
        _bert_theirs,
        lambda _: _BERT,
    ),
    "roberta": Layout(
        "RobertaConfig", {end: f"Roberta{end}" for end in _ENCODERS}, _roberta_ours, _roberta_theirs, lambda _: _ROBERTA
    ),
    "gpt2": Layout(
        "GPT2Config", {"ForCausalLM": "GPT2LMHeadModel"}, _gpt2_ours, _gpt2_theirs, lambda _: _GPT2, turned=_TURNED
    ),
    "llama": Layout("LlamaConfig", {"ForCausalLM": "LlamaForCausalLM"}, _llama_ours, _llama_theirs, lambda _: _LLAMA),
    "t5": Layout("T5Config", {_SEQ2SEQ: "T5ForConditionalGeneration"}, _t5_ours, _t5_theirs, _t5_names),
    "bart": Layout(
        "BartConfig",
        {_SEQ2SEQ: "BartForConditionalGeneration"},
        _bart_ours,
        _bart_theirs,
        _bart_names,
        zero=("final_logits_bias",),
    ),
}
"""By their model_type."""
