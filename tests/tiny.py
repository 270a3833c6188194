"""Tiny random checkpoints for tests: a folder that looks to the product like any downloaded model.

`save_tiny(folder, "llama")` writes config.json, model.safetensors, tokenizer.json ... in about 0.1 s. The tokenizer is a
byte-level BPE trained on the sentences below, so that any text round-trips and multi-character tokens exist. With
`scale=10` every weight matrix is ten times larger than at initialisation: attention becomes sharp and the
log-probabilities depend strongly on mask and positions, so that a parity test can fail.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = (
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "Question: which of the following answers is right? Answer: the first one.",
    "The cat sat on the mat. The cats sit on the mats. A cat sits on a mat.",
    "It was the best of times, it was the worst of times, it was the age of wisdom.",
    "She said that he had seen her. He said that she had seen him. They saw themselves.",
    "Seven plus five is twelve; twelve minus five is seven. 0 1 2 3 4 5 6 7 8 9",
    "今天天气很好。我们去公园散步。问题：哪一个是正确的答案？答案：第一个。",
)

CHAT_TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def tiny_tokenizer(*, vocab_size: int = 320, bos: bool = False, chat: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE with <s> (0), </s> (1) and <pad> (2); `bos`: it puts <s> before every text by itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return fast


def _common(vocab: int, max_tokens: int, layers: int = 2, kv_heads: int = 2) -> dict[str, Any]:
    """The arguments that most decoder configs share."""
    return {
        "vocab_size": vocab,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": max_tokens,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }


def _gemma(vocab: int, max_tokens: int) -> dict[str, Any]:
    """Four layers of both kinds, sliding windows of 8 tokens."""
    kinds = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
    more = {"head_dim": 8, "sliding_window": 8, "layer_types": kinds, "query_pre_attn_scalar": 8}
    return _common(vocab, max_tokens, layers=4, kv_heads=1) | more


_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}

CONFIGS: dict[str, Callable[[int, int], transformers.PretrainedConfig]] = {
    "llama": lambda v, n: transformers.LlamaConfig(**_common(v, n)),
    "mistral": lambda v, n: transformers.MistralConfig(**_common(v, n), sliding_window=8, head_dim=8),
    "qwen2": lambda v, n: transformers.Qwen2Config(**_common(v, n)),
    "qwen3": lambda v, n: transformers.Qwen3Config(**_common(v, n), head_dim=8),
    "gemma2": lambda v, n: transformers.Gemma2Config(
        **(_gemma(v, n) | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0})
    ),
    "gemma3": lambda v, n: transformers.Gemma3TextConfig(**_gemma(v, n)),
    "phi": lambda v, n: transformers.PhiConfig(**_common(v, n, kv_heads=4)),
    "gpt2": lambda v, n: transformers.GPT2Config(
        vocab_size=v, n_positions=n, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=1, pad_token_id=2
    ),
    "gpt_neox": lambda v, n: transformers.GPTNeoXConfig(**_common(v, n, kv_heads=4)),
    "opt": lambda v, n: transformers.OPTConfig(
        **_common(v, n), ffn_dim=48, word_embed_proj_dim=32, do_layer_norm_before=True
    ),
    "falcon": lambda v, n: transformers.FalconConfig(**_SMALL, vocab_size=v, num_attention_heads=4),
    "bloom": lambda v, n: transformers.BloomConfig(
        vocab_size=v, hidden_size=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=1, pad_token_id=2
    ),
    "mamba": lambda v, n: transformers.MambaConfig(**_SMALL, vocab_size=v, state_size=4),
    "rwkv": lambda v, n: transformers.RwkvConfig(
        vocab_size=v, hidden_size=32, num_hidden_layers=2, bos_token_id=0, eos_token_id=1, context_length=n
    ),
}


def tiny_model(
    architecture: str = "llama", *, seed: int = 0, scale: float = 1.0, vocab_size: int = 320, max_tokens: int = 128
) -> transformers.PreTrainedModel:
    """A random model in evaluation mode, float32; `scale` multiplies every parameter of two or more dimensions."""
    config = CONFIGS[architecture](vocab_size, max_tokens)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        seen: set[int] = set()
        for parameter in model.parameters():
            if parameter.dim() >= 2 and parameter.data_ptr() not in seen:
                seen.add(parameter.data_ptr())
                parameter.mul_(scale)
    return model.eval()


def save_tiny(
    folder: Path,
    architecture: str = "llama",
    *,
    seed: int = 0,
    scale: float = 1.0,
    bos: bool = False,
    chat: bool = False,
    max_tokens: int = 128,
    vocab_size: int = 320,
) -> Path:
    """Write a tiny random checkpoint of one of CONFIGS to `folder` and return the folder.

    The model's vocabulary has 8 rows more than the tokenizer's, as padded vocabularies of real models do (and because
    some tokenizer classes add a token of their own when they are read back).
    """
    tiny_tokenizer(vocab_size=vocab_size, bos=bos, chat=chat).save_pretrained(folder)
    model = tiny_model(architecture, seed=seed, scale=scale, vocab_size=vocab_size + 8, max_tokens=max_tokens)
    model.save_pretrained(folder)
    return Path(folder)
