"""Small GGUF files and wheels for tests, written with the `gguf` package the way llama.cpp's converter does."""

import json
import zipfile
from pathlib import Path

import gguf
import numpy as np

from tests.tiny import tiny_model, tiny_tokenizer

GGUF_NAMES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3", "gpt2": "gpt2"}


def interleave(weights, num_heads):
    """What llama.cpp's converter does to the query and key projections of Llama (convert_hf_to_gguf.py, `permute`)."""
    rows = weights.shape[0]
    return weights.reshape(num_heads, 2, rows // num_heads // 2, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)


def write_numbers(writer, architecture, config):
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if architecture == "gpt2":
        writer.add_feed_forward_length(4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if architecture == "gemma3":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_sliding_window(config.sliding_window)
        writer.add_rope_freq_base(config.rope_parameters["full_attention"]["rope_theta"])
    else:
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if architecture == "llama":
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_vocab_size(config.vocab_size)
    if architecture == "qwen3":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)


def write_vocabulary(writer, size, *, pre="gpt-2", chat_template=None):
    """The tiny byte-level vocabulary, filled up to `size` with unused control tokens."""
    tokenizer = tiny_tokenizer()
    state = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    kinds = [gguf.TokenType.CONTROL if token in ("<s>", "</s>", "<pad>") else gguf.TokenType.NORMAL for token in tokens]
    extra = [f"<unused{i}>" for i in range(size - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens + extra)
    writer.add_token_types([*kinds, *[gguf.TokenType.CONTROL] * len(extra)])
    writer.add_token_merges([" ".join(pair) for pair in state["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    if chat_template:
        writer.add_chat_template(chat_template)
    return tokenizer


def tensors_of(model, architecture):
    """(llama.cpp's name, values) of every parameter, changed as llama.cpp's converter changes them."""
    config = model.config
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == GGUF_NAMES[architecture])
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.float().numpy()
        if architecture == "llama" and "q_proj" in name:
            values = interleave(values, config.num_attention_heads)
        if architecture == "llama" and "k_proj" in name:
            values = interleave(values, config.num_key_value_heads)
        if architecture == "gemma3" and name.endswith("norm.weight"):
            values = values + 1
        if architecture == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            values = values.T
        yield names.get_name(name, try_suffixes=(".weight", ".bias")), np.ascontiguousarray(values, dtype=np.float32)


def save_gguf(path, architecture="llama", *, change=None, add=None, scale=1.0, max_tokens=128, **vocabulary):
    """Writes a tiny random model to `path` and returns it; `change(name, values)` may replace values or drop a tensor
    (None), `add(writer)` may add keys."""
    model = tiny_model(architecture, scale=scale, max_tokens=max_tokens)
    for parameter in model.parameters():  # norms that are not all alike
        if parameter.dim() == 1:
            parameter.data += 0.1 * np.random.default_rng(parameter.numel()).standard_normal()
    writer = gguf.GGUFWriter(str(path), GGUF_NAMES[architecture])
    writer.add_name("tiny")
    write_numbers(writer, architecture, model.config)
    write_vocabulary(writer, model.config.vocab_size, **vocabulary)
    if add:
        add(writer)
    for name, values in tensors_of(model, architecture):
        values = change(name, values) if change else values
        if values is not None:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def save_wheel(folder, name, files, *, version="1.0"):
    """A wheel that pip accepts, holding `files` (path in the archive -> bytes, or a prepared ZipInfo -> bytes)."""
    plain = name.replace("-", "_")
    path = Path(folder) / f"{plain}-{version}-py3-none-any.whl"
    info = f"{plain}-{version}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in files.items():
            archive.writestr(entry, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path
