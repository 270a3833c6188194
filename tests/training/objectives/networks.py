"""Tiny random networks and corpora for the tests of objectives."""

from functools import cache
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer as Core
from tokenizers import models

VOCAB = 64
SPECIALS = ["[PAD]", "<s>", "</s>", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = 320
"""Ids of the tokenizer below: special tokens, words, `##` pieces, sentinels."""


@cache
def pieces_tokenizer() -> Any:
    """A WordPiece tokenizer with every special token there is; two words in three begin with a plain token."""
    sentinels = [f"<extra_id_{number}>" for number in reversed(range(40))]
    rest = PIECES - len(SPECIALS) - len(sentinels)
    words = [f"w{number}" if number % 3 else f"##p{number}" for number in range(rest)]
    vocabulary = {token: number for number, token in enumerate([*SPECIALS, *words, *sentinels])}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Core(models.WordPiece(vocabulary, unk_token="[UNK]")),
        pad_token="[PAD]",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        additional_special_tokens=sentinels[::-1],
    )


PLAIN = (len(SPECIALS), PIECES - 40)
"""First id of words and pieces, and the first behind them."""


class Sentences(list[Any]):
    """Documents that know their sentences: one starts every `every` tokens."""

    def __init__(self, documents: list[np.ndarray], every: int = 7) -> None:
        super().__init__(documents)
        self.every = every

    def sentences(self, index: int) -> np.ndarray:
        return np.arange(0, len(self[index]), self.every, dtype=np.uint32)


def plain(lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    """Documents of words and pieces."""
    return corpus(lengths, low=PLAIN[0], high=PLAIN[1], seed=seed)


def close(found: float, wanted: float, n: int, sigmas: float = 4.0) -> bool:
    """Whether a share of n is within so many standard errors of a probability."""
    return abs(found - wanted) <= sigmas * (wanted * (1 - wanted) / n) ** 0.5


def batches(objective: Any, size: int, epoch: int = 0, most: int = 10**9) -> Any:
    """The batches of an epoch, from the first `most` examples."""
    examples = [objective.example(epoch, i) for i in range(min(most, objective.num_examples(epoch)))]
    for start in range(0, len(examples), size):
        yield objective.collate(examples[start : start + size])


def gradients(network: Any, loss: Any) -> dict[str, torch.Tensor]:
    network.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def same_loss(network: Any, mine: Any, theirs: Any) -> None:
    """Values within 1e-5, gradients too."""
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    ours, wanted = gradients(network, mine), gradients(network, theirs)
    assert ours.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def same_examples(make: Any, epoch: int = 1) -> None:
    """`make(seed)` gives the same examples for the same key in whatever order, and others for another seed or epoch."""

    def rows(objective: Any, epoch: int, order: Any) -> dict[int, Any]:
        return {i: {name: field.tolist() for name, field in objective.example(epoch, i).fields.items()} for i in order}

    one, two = make(3), make(3)
    count = min(20, one.num_examples(epoch))
    two.example(0, 0)
    first = rows(one, epoch, range(count))
    assert first == rows(two, epoch, reversed(range(count)))
    assert first != rows(one, epoch + 1, range(min(count, one.num_examples(epoch + 1))))
    other = make(4)
    assert first != rows(other, epoch, range(min(count, other.num_examples(epoch))))


class Tokenizer:
    """Ids of special tokens and the strings of all others, as objectives ask a transformers tokenizer for them."""

    bos_token_id: int | None = 1
    eos_token_id: int | None = 1
    pad_token_id: int | None = 0


def corpus(lengths: list[int], *, low: int = 8, high: int = VOCAB, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(low, high, size=n).astype(np.uint16) for n in lengths]


def network(kind: str, *, seed: int = 0, scale: float = 5.0, **options: Any) -> Any:
    """A two-layer network of `kind`, weights enlarged so that attention matters; in eval mode."""
    torch.manual_seed(seed)
    config, architecture = CONFIGS[kind]
    made = architecture(config(**options)).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.ndim > 1 and "embed" not in name and "wte" not in name and "wpe" not in name:
                parameter.mul_(scale)
    return made


def _gpt2(vocab: int = VOCAB, **options: Any) -> Any:
    return transformers.GPT2Config(
        vocab_size=vocab, n_positions=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=1, **options
    )


def _llama(kind: Any) -> Any:
    def make(**options: Any) -> Any:
        return kind(
            vocab_size=VOCAB,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            pad_token_id=0,
            **options,
        )

    return make


def _encoder(kind: Any, **own: Any) -> Any:
    def make(**options: Any) -> Any:
        shape = {
            "vocab_size": PIECES,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 80,
            "embedding_size": 32,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "pad_token_id": 0,
        }
        return kind(**{**shape, **own, **options})

    return make


def _t5(**options: Any) -> Any:
    return transformers.T5Config(
        vocab_size=PIECES,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=2,
        **options,
    )


def _bart(**options: Any) -> Any:
    return transformers.BartConfig(
        vocab_size=PIECES,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=80,
        dropout=0.0,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
        **options,
    )


def _xlnet(**options: Any) -> Any:
    return transformers.XLNetConfig(
        vocab_size=PIECES, d_model=32, n_layer=2, n_head=4, d_inner=48, dropout=0.0, pad_token_id=0, **options
    )


CONFIGS: dict[str, tuple[Any, Any]] = {
    "gpt2": (_gpt2, transformers.GPT2LMHeadModel),
    "llama": (_llama(transformers.LlamaConfig), transformers.LlamaForCausalLM),
    "qwen3": (_llama(transformers.Qwen3Config), transformers.Qwen3ForCausalLM),
    "cohere": (_llama(transformers.CohereConfig), transformers.CohereForCausalLM),
    "granite": (_llama(transformers.GraniteConfig), transformers.GraniteForCausalLM),
    "gemma2": (_llama(transformers.Gemma2Config), transformers.Gemma2ForCausalLM),
    "bert": (_encoder(transformers.BertConfig), transformers.BertForMaskedLM),
    "bert_pairs": (_encoder(transformers.BertConfig), transformers.BertForPreTraining),
    "roberta": (_encoder(transformers.RobertaConfig), transformers.RobertaForMaskedLM),
    "albert": (_encoder(transformers.AlbertConfig, embedding_size=16), transformers.AlbertForMaskedLM),
    "albert_pairs": (_encoder(transformers.AlbertConfig, embedding_size=16), transformers.AlbertForPreTraining),
    "electra": (_encoder(transformers.ElectraConfig), transformers.ElectraForPreTraining),
    "electra_masked": (_encoder(transformers.ElectraConfig, embedding_size=16), transformers.ElectraForMaskedLM),
    "t5": (_t5, transformers.T5ForConditionalGeneration),
    "bart": (_bart, transformers.BartForConditionalGeneration),
    "xlnet": (_xlnet, transformers.XLNetLMHeadModel),
}
