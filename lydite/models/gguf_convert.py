"""A GGUF file -> a checkpoint folder of the usual kind: config.json, safetensors, tokenizer.json, chat template.

Converted once and kept, because opening a GGUF file through transformers takes 10 to 60 seconds each time. Llama,
Qwen2, Qwen3 and Gemma 3 are rewritten here tensor by tensor, without torch; any other architecture goes through
transformers' own reader. A number in the file that the direct path does not know (a kind of rope scaling, experts) is
refused rather than dropped, since it would change answers in silence.

Values are stored as float16 and the one-dimensional ones (norms, biases) as float32. Against float32 throughout, the
log-probability of a token moves by 0.0014 nats on average with float16 and by 0.0083 with bfloat16 (SmolLM2 Q4_1;
0.0013 and 0.0085 for Gemma 3 Q4_K_M; 1,024 tokens of running text): a block's scale is a float16 already, so float16 keeps three more bits of each value than bfloat16 at the same
size. A tensor that float16 cannot hold (beyond 65,504) is stored as float32.

llama.cpp stores some weights changed, which is undone here (source: its convert_hf_to_gguf.py): the rows of Llama's
query and key projections are interleaved, and Gemma's norms are stored plus one.
"""

import errno
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lydite.errors import ModelError
from lydite.models.gguf_file import GGUFFile, Tensor, read_gguf
from lydite.models.gguf_tokenizer import build_tokenizer, stop_ids, tokenizer_config

_SHARD_BYTES = 1 << 30
_FLOAT16_MAX = 65504.0

_LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
}
_QK_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_LLAMA_LAYER = {**_LAYER, "ffn_norm": "post_attention_layernorm"}
_GEMMA3_LAYER = {
    **_LAYER,
    **_QK_NORMS,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}

Config = dict[str, Any]


def convert_gguf(source: Path, folder: Path) -> None:
    """Writes the checkpoint of the GGUF file `source` into the existing, empty `folder`.

    Raises ModelError for a file that is torn or holds what is not known here; OSError where the disk is full.
    """
    head = read_gguf(source)
    tokenizer = build_tokenizer(head.metadata)
    if head.architecture in _CONFIGS:
        config = _config(head)
        _write_weights(head, config, folder)
        _write_json(folder / "config.json", config)
        _write_generation_config(head, folder)
    else:
        _convert_with_transformers(source, folder)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    limit = {"model_max_length": head.metadata.get(f"{head.architecture}.context_length", 1 << 20)}
    _write_json(folder / "tokenizer_config.json", tokenizer_config(head.metadata) | limit)
    template = head.metadata.get("tokenizer.chat_template")
    if isinstance(template, str) and template:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


# ------------------------------------------------------------------------------------------- config


class _Keys:
    """The numbers that a file states about its architecture; remembers which were read, so that none is dropped."""

    def __init__(self, head: GGUFFile) -> None:
        prefix = head.architecture + "."
        self._path = head.path
        self._values = {k.removeprefix(prefix): v for k, v in head.metadata.items() if k.startswith(prefix)}
        self._read: set[str] = set()

    def __call__(self, name: str, default: Any = None) -> Any:
        self._read.add(name)
        value = self._values.get(name, default)
        if value is None:
            raise ModelError(f"{self._path} does not state {name}; use the original checkpoint")
        # The file holds float32; the shortest number that rounds to it is what the original config states (1e-05).
        return float(str(np.float32(value))) if isinstance(value, float) else value

    def refuse_unread(self) -> None:
        unknown = sorted(set(self._values) - self._read)
        if unknown:
            raise ModelError(
                f"{self._path} states {', '.join(unknown)}, which the conversion does not know: "
                "use the original checkpoint"
            )


def _config(head: GGUFFile) -> Config:
    keys = _Keys(head)
    names = {tensor.name for tensor in head.tensors}
    num_heads = keys("attention.head_count")
    config = {
        "vocab_size": len(head.metadata["tokenizer.ggml.tokens"]),
        "hidden_size": keys("embedding_length"),
        "intermediate_size": keys("feed_forward_length"),
        "num_hidden_layers": keys("block_count"),
        "num_attention_heads": num_heads,
        "num_key_value_heads": keys("attention.head_count_kv", num_heads),
        "max_position_embeddings": keys("context_length"),
        "rms_norm_eps": keys("attention.layer_norm_rms_epsilon"),
        # llama.cpp writes the output matrix only where it is not the embedding matrix.
        "tie_word_embeddings": "output.weight" not in names,
        "dtype": "float16",
        **_CONFIGS[head.architecture](keys),
        **_special_ids(head.metadata),
    }
    if keys("vocab_size", config["vocab_size"]) != config["vocab_size"]:
        raise ModelError(f"{head.path}: the vocabulary and the stated vocab_size differ; fetch it again")
    keys("rope.dimension_count", config["head_dim"])
    if keys("rope.dimension_count", config["head_dim"]) != config["head_dim"]:
        raise ModelError(f"{head.path} rotates a part of each head only; use the original checkpoint")
    keys.refuse_unread()
    return config


def _special_ids(metadata: Mapping[str, Any]) -> Config:
    stops = stop_ids(metadata)
    return {
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": stops[0] if stops else None,
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
    }


def _head_dim(keys: _Keys, default: int) -> int:
    size = int(keys("attention.key_length", default))
    if keys("attention.value_length", size) != size:
        raise ModelError("the GGUF file has keys and values of different sizes; use the original checkpoint")
    return size


def _llama_config(keys: _Keys) -> Config:
    head_dim = _head_dim(keys, keys("rope.dimension_count", keys("embedding_length") // keys("attention.head_count")))
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_act": "silu",
        "head_dim": head_dim,
        "rope_parameters": {"rope_type": "default", "rope_theta": keys("rope.freq_base", 10000.0)},
    }


def _qwen2_config(keys: _Keys) -> Config:
    head_dim = _head_dim(keys, keys("embedding_length") // keys("attention.head_count"))
    rope = {"rope_type": "default", "rope_theta": keys("rope.freq_base", 10000.0)}
    base = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_act": "silu"}
    return {**base, "head_dim": head_dim, "rope_parameters": rope, "use_sliding_window": False}


def _qwen3_config(keys: _Keys) -> Config:
    return {**_qwen2_config(keys), "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}


def _gemma3_config(keys: _Keys) -> Config:
    num_layers, head_dim = keys("block_count"), _head_dim(keys, 256)
    pattern = keys("attention.sliding_window_pattern", 6)
    full: Config = {"rope_type": "default", "rope_theta": keys("rope.freq_base", 1_000_000.0)}
    scaling = keys("rope.scaling.type", "none")
    if scaling == "linear":
        full |= {"rope_type": "linear", "factor": keys("rope.scaling.factor")}
    elif scaling != "none" or not isinstance(pattern, int):
        raise ModelError("the GGUF file scales its positions in an unknown way; use the original checkpoint")
    # The file does not state the scale of the queries. All sizes use the size of a head but the one with 62 layers
    # (llama.cpp, src/models/gemma3*.cpp: LLM_TYPE_27B).
    scale = keys("embedding_length") // keys("attention.head_count") if num_layers == 62 else head_dim
    return {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "hidden_activation": "gelu_pytorch_tanh",
        "head_dim": head_dim,
        "query_pre_attn_scalar": scale,
        "sliding_window": keys("attention.sliding_window"),
        "layer_types": [
            "full_attention" if (layer + 1) % pattern == 0 else "sliding_attention" for layer in range(num_layers)
        ],
        "rope_parameters": {
            "full_attention": full,
            "sliding_attention": {"rope_type": "default", "rope_theta": keys("rope.freq_base_swa", 10000.0)},
        },
    }


_CONFIGS: dict[str, Callable[[_Keys], Config]] = {
    "llama": _llama_config,
    "qwen2": _qwen2_config,
    "qwen3": _qwen3_config,
    "gemma3": _gemma3_config,
}


def _write_generation_config(head: GGUFFile, folder: Path) -> None:
    stops = stop_ids(head.metadata)
    ids = {name: index for name, index in _special_ids(head.metadata).items() if index is not None}
    if stops:
        ids["eos_token_id"] = stops if len(stops) > 1 else stops[0]
    _write_json(folder / "generation_config.json", ids)


# ------------------------------------------------------------------------------------------ weights


def _tensor_names(head: GGUFFile, config: Config) -> dict[str, str]:
    """llama.cpp's name of every tensor that the architecture has -> transformers' name."""
    layer = {
        "llama": {f"{k}.weight": f"{v}.weight" for k, v in _LLAMA_LAYER.items()},
        "qwen2": {
            **{f"{k}.weight": f"{v}.weight" for k, v in _LLAMA_LAYER.items()},
            **{f"attn_{part}.bias": f"self_attn.{part}_proj.bias" for part in "qkv"},
        },
        "qwen3": {f"{k}.weight": f"{v}.weight" for k, v in {**_LLAMA_LAYER, **_QK_NORMS}.items()},
        "gemma3": {f"{k}.weight": f"{v}.weight" for k, v in _GEMMA3_LAYER.items()},
    }[head.architecture]
    names = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    if not config["tie_word_embeddings"]:
        names["output.weight"] = "lm_head.weight"
    for number in range(config["num_hidden_layers"]):
        names.update({f"blk.{number}.{k}": f"model.layers.{number}.{v}" for k, v in layer.items()})
    return names


def _write_weights(head: GGUFFile, config: Config, folder: Path) -> None:
    names = _tensor_names(head, config)
    present = {tensor.name for tensor in head.tensors}
    wrong = sorted(present ^ set(names))
    if wrong:
        verb = "lacks the tensor" if wrong[0] in names else "holds the unknown tensor"
        raise ModelError(f"{head.path} {verb} {wrong[0]}; use the original checkpoint")
    shards: list[dict[str, NDArray[Any]]] = [{}]
    size = 0
    for tensor in head.tensors:
        values = _values(head, tensor, config)
        if size and size + values.nbytes > _SHARD_BYTES:
            _write_shard(folder, len(shards), shards[-1])
            shards[-1] = dict.fromkeys(shards[-1], np.empty(0))
            shards.append({})
            size = 0
        shards[-1][names[tensor.name]] = values
        size += values.nbytes
    _write_shard(folder, len(shards), shards[-1])
    _name_shards(folder, [list(shard) for shard in shards])


def _values(head: GGUFFile, tensor: Tensor, config: Config) -> NDArray[Any]:
    """The tensor as it is stored: float16 [rows, columns] where that holds it, float32 otherwise."""
    if len(tensor.shape) == 1:
        vector: NDArray[np.float32] = np.concatenate(list(head.rows(tensor)))[0]
        _peak(head, tensor, vector)
        offset = 1.0 if head.architecture == "gemma3" else 0.0  # all of Gemma's vectors are norms
        return vector - np.float32(offset)
    largest, pieces = 0.0, []
    for piece in head.rows(tensor):
        largest = max(largest, _peak(head, tensor, piece))
        pieces.append(piece.astype(np.float16) if largest <= _FLOAT16_MAX else piece)
    if largest > _FLOAT16_MAX:
        pieces = list(head.rows(tensor))
    values = np.concatenate(pieces).reshape(tensor.shape)
    if head.architecture == "llama" and tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
        return _deinterleave(values, config["head_dim"])
    return values


def _peak(head: GGUFFile, tensor: Tensor, values: NDArray[np.float32]) -> float:
    """The largest absolute value; refuses what is not finite."""
    peak = float(np.abs(values).max())
    if not np.isfinite(peak):
        raise ModelError(f"{head.path}: tensor {tensor.name} holds a non-finite number; fetch it again")
    return peak


def _deinterleave(values: NDArray[Any], head_dim: int) -> NDArray[Any]:
    """Undoes llama.cpp's order of the rows: rotated pairs side by side -> first halves, then second halves."""
    pairs = values.reshape(-1, head_dim // 2, 2, values.shape[1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(values.shape))


def _write_shard(folder: Path, number: int, tensors: Mapping[str, NDArray[Any]]) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(dict(tensors), folder / f"shard-{number}.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:  # how the library reports what the disk says
        raise OSError(errno.ENOSPC if "os error 28" in str(error) else errno.EIO, str(error)) from None


def _name_shards(folder: Path, shards: list[list[str]]) -> None:
    """Gives the files the names that transformers looks for, and the index where there are several."""
    if len(shards) == 1:
        (folder / "shard-1.safetensors").rename(folder / "model.safetensors")
        return
    index = {}
    for number, names in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        (folder / f"shard-{number}.safetensors").rename(folder / name)
        index.update(dict.fromkeys(names, name))
    total = sum(path.stat().st_size for path in folder.glob("model-*.safetensors"))
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": index})


# ------------------------------------------------------------------------------------- other architectures


def _convert_with_transformers(source: Path, folder: Path) -> None:
    """Through transformers' own reader; the model is rebuilt from its config, because one that was read from a GGUF
    file refuses to be saved."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        loaded = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
        config = AutoConfig.from_pretrained(source.parent, gguf_file=source.name)
    except (ValueError, KeyError, NotImplementedError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{source}: transformers cannot read it ({reason}); use the original checkpoint") from None
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict())
    plain.tie_weights()
    plain.to(torch.float16).save_pretrained(folder)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")
