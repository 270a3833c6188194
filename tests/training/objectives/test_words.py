"""Where words begin, by the marks of each kind of tokenizer and in both scripts."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lydite.training.objectives.words import Words, ordinary_ids
from tests.tiny import tiny_tokenizer


def made(model, pre=None, decoder=None):
    core = Tokenizer(model)
    if pre is not None:
        core.pre_tokenizer = pre
    if decoder is not None:
        core.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", sep_token="[SEP]")


def groups(tokenizer, tokens):
    """The tokens joined to words with |."""
    ids = np.array(tokenizer.convert_tokens_to_ids(tokens))
    starts = Words(tokenizer).starts(ids)
    return "".join(("|" if start else "") + token for token, start in zip(tokens, starts, strict=True))[1:]


def test_wordpiece():
    tokens = ["[UNK]", "[SEP]", "play", "##ing", "##s", ",", ".", "我", "们", "7"]
    tokenizer = made(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]"))
    got = groups(tokenizer, ["[SEP]", "play", "##ing", "##s", ",", ".", "我", "们", "play", "[SEP]", "7"])
    assert got == "[SEP]|play##ing##s|,|.|我|们|play|[SEP]|7"


def test_byte_level():
    tokenizer = tiny_tokenizer()
    for text, words in {
        "The cats sit, and sleep.": ["The", " cats", " sit", ",", " and", " sleep", "."],
        "今天好吗": ["今", "天", "好", "吗"],
        "ab今天cd": ["ab", "今", "天", "cd"],
        "天公cd": ["天", "公", "cd"],
        "it's 10\n\nnew": ["it", "'", "s", " 10", "\n\n", "new"],
    }.items():
        ids = np.array(tokenizer(text).input_ids)
        starts = np.flatnonzero(Words(tokenizer).starts(ids))
        found = [tokenizer.decode(part) for part in np.split(ids, starts[1:])]
        assert found == words, text


def test_sentencepiece():
    tokens = ["[UNK]", "[SEP]", "▁", "▁play", "ing", ".", "我", "喜欢", "▁我", "a", "<0xE4>", "<0xBD>", "<0xA0>"]
    tokenizer = made(
        models.Unigram([(t, -1.0) for t in tokens], unk_id=0),
        pre_tokenizers.Metaspace(),
        decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()]),
    )
    got = groups(tokenizer, ["▁play", "ing", ".", "▁", "a", "▁我", "喜欢", "我", "<0xE4>", "<0xBD>", "<0xA0>", "▁play"])
    assert got == "▁playing|.|▁a|▁我|喜欢|我|<0xE4><0xBD><0xA0>|▁play"


def test_characters():
    tokens = ["[UNK]", "[SEP]", "a", "b", " ", ".", "我"]
    tokenizer = made(models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]"))
    assert groups(tokenizer, ["a", "b", " ", "b", ".", "我", "我", "a"]) == "ab| |b|.|我|我|a"


def test_special_tokens_are_no_words():
    tokenizer = made(models.WordLevel({t: i for i, t in enumerate(["[UNK]", "[SEP]", "a", "b"])}, unk_token="[UNK]"))
    starts, lengths = Words(tokenizer).words(np.array([1, 2, 3, 1, 2, 1]))
    assert (starts.tolist(), lengths.tolist()) == ([1, 4], [2, 1])
    assert ordinary_ids(tokenizer).tolist() == [2, 3]
    assert pytest.approx(len(tokenizer)) == 4
