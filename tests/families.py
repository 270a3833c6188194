"""Tiny random checkpoints of every family, each with a tiny tokenizer whose special tokens stand as in the real ones.

`save_family(folder, "bert")` writes a folder that looks to the product like a downloaded checkpoint; `head` chooses another
class of transformers than the language model. As in tiny.py, `scale` makes attention sharp, so that a wrong mask shows.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lydite.models.own import register
from lydite.models.transformer_config import LyditeTransformerConfig as Ours
from tests.tiny import TEXTS, tiny_tokenizer

register()


def wordpiece() -> PreTrainedTokenizerFast:
    """As BERT's: [CLS] a [SEP] b [SEP], lower case, Chinese characters apart."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=230, special_tokens=specials, show_progress=False)
    )
    _template(tokenizer, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", "[CLS]", "[SEP]")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def bytelevel() -> PreTrainedTokenizerFast:
    """As RoBERTa's and BART's: <s> a </s></s> b </s>, on bytes; <pad> is 1."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    _template(tokenizer, "<s> $A </s>", "<s> $A </s> </s> $B </s>", "<s>", "</s>")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token=AddedToken("<mask>", lstrip=True, special=True),
        model_input_names=["input_ids", "attention_mask"],
    )


def unigram(kind: str) -> PreTrainedTokenizerFast:
    """As ALBERT's ([CLS] a [SEP]), T5's (a </s>) or XLNet's (a <sep> <cls>), by SentencePiece's rules for spaces."""
    specials = {
        "albert": ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
        "t5": ["<pad>", "</s>", "<unk>", "<extra_id_0>", "<extra_id_1>"],
        "xlnet": ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>"],
    }[kind]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=220, special_tokens=specials, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    named: dict[str, Any] = {"pad_token": "<pad>", "unk_token": "<unk>"}
    if kind == "albert":
        _template(tokenizer, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", "[CLS]", "[SEP]")
        named |= {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    elif kind == "t5":
        _template(tokenizer, "$A </s>", "$A </s> $B </s>", "</s>")
        named |= {"eos_token": "</s>", "model_input_names": ["input_ids", "attention_mask"]}
    else:
        _template(tokenizer, "$A <sep> <cls>:2", "$A <sep> $B:1 <sep>:1 <cls>:2", "<sep>", "<cls>")
        named |= {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<cls>", "sep_token": "<sep>"}
        named |= {"mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def _template(tokenizer: Tokenizer, single: str, pair: str, *specials: str) -> None:
    known = [(token, tokenizer.token_to_id(token)) for token in specials]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=known)


_BLOCK = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_BERT = _BLOCK | {"max_position_embeddings": 64, "pad_token_id": 0}

FAMILIES: dict[str, tuple[Callable[[], PreTrainedTokenizerFast], Callable[[int], Any]]] = {
    "gpt2": (
        tiny_tokenizer,
        lambda v: transformers.GPT2Config(
            vocab_size=v, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=1
        ),
    ),
    "llama": (
        lambda: tiny_tokenizer(bos=True),
        lambda v: transformers.LlamaConfig(
            **_BLOCK, vocab_size=v, num_key_value_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=1
        ),
    ),
    "qwen2": (
        tiny_tokenizer,
        lambda v: transformers.Qwen2Config(
            **_BLOCK, vocab_size=v, num_key_value_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=1
        ),
    ),
    "bert": (wordpiece, lambda v: transformers.BertConfig(**_BERT, vocab_size=v)),
    "roberta": (
        bytelevel,
        lambda v: transformers.RobertaConfig(
            **_BLOCK, vocab_size=v, max_position_embeddings=66, pad_token_id=1, type_vocab_size=1
        ),
    ),
    "albert": (
        lambda: unigram("albert"),
        lambda v: transformers.AlbertConfig(**_BERT, vocab_size=v, embedding_size=16),
    ),
    "electra": (wordpiece, lambda v: transformers.ElectraConfig(**_BERT, vocab_size=v, embedding_size=16)),
    "xlnet": (
        lambda: unigram("xlnet"),
        lambda v: transformers.XLNetConfig(
            vocab_size=v, d_model=32, n_layer=2, n_head=4, d_inner=48, bos_token_id=1, eos_token_id=2, pad_token_id=5
        ),
    ),
    "t5": (
        lambda: unigram("t5"),
        lambda v: transformers.T5Config(
            vocab_size=v, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
        ),
    ),
    "bart": (
        bytelevel,
        lambda v: transformers.BartConfig(
            vocab_size=v,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            max_position_embeddings=64,
        ),
    ),
}
_OURS: dict[str, Any] = _BLOCK | {"max_position_embeddings": 64}
FAMILIES |= {
    "our-encoder": (
        wordpiece,
        lambda v: Ours(**_OURS, vocab_size=v, shape="encoder", pad_token_id=0, type_vocab_size=2),
    ),
    "our-decoder": (
        tiny_tokenizer,
        lambda v: Ours(**_OURS, vocab_size=v, shape="decoder", bos_token_id=0, eos_token_id=1),
    ),
    "our-encoder-decoder": (
        lambda: unigram("t5"),
        lambda v: Ours(
            **_OURS, vocab_size=v, shape="encoder-decoder", pad_token_id=0, eos_token_id=1, decoder_start_token_id=0
        ),
    ),
}
MASKED = ("bert", "roberta", "albert", "electra", "our-encoder")
HEADS = dict.fromkeys(MASKED, transformers.AutoModelForMaskedLM) | {
    "t5": transformers.AutoModelForSeq2SeqLM,
    "our-encoder-decoder": transformers.AutoModelForSeq2SeqLM,
    "bart": transformers.AutoModelForSeq2SeqLM,
}


def save_family(folder: Path, name: str, *, head: Any = None, scale: float = 6.0, seed: int = 0, **config: Any) -> Path:
    """Write a tiny random checkpoint of one of FAMILIES; `head`: an Auto class, else the language model."""
    make_tokenizer, make_config = FAMILIES[name]
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    made = make_config(len(tokenizer) + 8)
    for key, value in config.items():
        setattr(made, key, value)
    auto = head or HEADS.get(name, transformers.AutoModelForCausalLM)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = auto.from_config(made, dtype=torch.float32)
    with torch.no_grad():
        for parameter in {id(p): p for p in model.parameters()}.values():
            if parameter.dim() >= 2:
                parameter.mul_(scale)
            elif parameter.abs().max() == 0:  # biases start at zero, where a forgotten one would not show
                parameter.copy_(torch.linspace(-0.5, 0.5, len(parameter)))
    model.save_pretrained(folder)
    return Path(folder)
