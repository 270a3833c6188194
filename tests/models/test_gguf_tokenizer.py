"""Tokenizers rebuilt from GGUF metadata, against a naive merger and what llama.cpp printed."""

import itertools
import random

import pytest

from lydite.errors import ModelError
from lydite.models.gguf_tokenizer import build_tokenizer, stop_ids, tokenizer_config

NORMAL, UNKNOWN, CONTROL, USER, BYTE = 1, 2, 3, 4, 6
SPACE = "\u2581"


def byte_level(pre, tokens=(), merges=()):
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    everything = ["<end>", *alphabet, *tokens]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": everything,
        "tokenizer.ggml.token_type": [CONTROL] + [NORMAL] * (len(everything) - 1),
        "tokenizer.ggml.merges": list(merges),
        "tokenizer.ggml.eos_token_id": 0,
    }


BLANKS = {"tokens": ("ĊĊ", "ĠĠ", "12", "345", "34", "é"), "merges": ("Ċ Ċ", "Ġ Ġ", "1 2", "3 4", "34 5", "Ã ©")}


# What llama.cpp does with SmolLM2's own file: a blank line before a digit stays whole, and digits stand alone. GPT-2's
# cut splits the blank line, because a blank before a word belongs to the word.
@pytest.mark.parametrize(
    ("pre", "text", "wanted"),
    [
        ("smollm", "a\n\n12", ["a", "ĊĊ", "1", "2"]),
        ("gpt-2", "a\n\n12", ["a", "Ċ", "Ċ", "12"]),
        ("smollm", "x  7", ["x", "ĠĠ", "7"]),
        ("gpt-2", "x  7", ["x", "Ġ", "Ġ", "7"]),
        ("llama-bpe", "12345", ["12", "3", "4", "5"]),  # groups of three: 123, 45
        ("llama-bpe", "345", ["345"]),
        ("qwen2", "345", ["3", "4", "5"]),
        ("qwen2", "e\u0301", ["Ã©"]),  # Qwen normalises to NFC first
        ("gpt-2", "e\u0301", ["e", "Ì", "ģ"]),
    ],
)
def test_how_text_is_cut(pre, text, wanted):
    blanks = {**BLANKS, "tokens": (*BLANKS["tokens"][:-1], "Ã©")}
    tokenizer = build_tokenizer(byte_level(pre, **blanks))
    assert tokenizer.encode(text).tokens == wanted


def test_special_tokens_stay_whole():
    metadata = byte_level("gpt-2")
    tokenizer = build_tokenizer(metadata)
    assert tokenizer.encode("a<end>b").ids[1] == 0
    assert tokenizer.decode(tokenizer.encode("a<end>b").ids) == "ab"
    assert tokenizer.decode(tokenizer.encode("a<end>b").ids, skip_special_tokens=False) == "a<end>b"


def sentencepiece(seed, *, prefix):
    """A random vocabulary over the letters a to d and the blank, every token reachable or not, scores in random order."""
    rng = random.Random(seed)
    letters = ["a", "b", "c", "d", SPACE]
    pieces = list(letters)
    while len(pieces) < 60:
        piece = "".join(rng.choices(pieces, k=2))
        if piece not in pieces and len(piece) <= 6:
            pieces.append(piece)
    longer = pieces[len(letters) :]
    rng.shuffle(longer)
    head = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)], "<tag>"]
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, USER]
    tokens = [*head, *longer, *letters]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds + [NORMAL] * (len(tokens) - len(kinds)),
        "tokenizer.ggml.scores": [0.0] * len(head) + [-float(i) for i in range(len(tokens) - len(head))],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_space_prefix": prefix,
    }


def merge_by_score(text, metadata):
    """Sentencepiece's rule, as slowly as can be: join the neighbours whose piece has the best score, the left ones first
    where two are equal, until none is left."""
    scores = dict(zip(metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.scores"], strict=True))
    parts = list(text.replace(" ", SPACE))
    while True:
        joined = [(-scores[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in scores]
        if not joined:
            return parts
        _, i = min(joined)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


@pytest.mark.parametrize("seed", range(8))
def test_sentencepiece_merges_by_score(seed):
    metadata = sentencepiece(seed, prefix=False)
    tokenizer = build_tokenizer(metadata)
    rng = random.Random(seed)
    for _ in range(50):
        text = "".join(rng.choices("abcd ", k=rng.randint(1, 25)))
        assert tokenizer.encode(text, add_special_tokens=False).tokens == merge_by_score(text, metadata)


def test_sentencepiece_prefix_bytes_and_borders():
    tokenizer = build_tokenizer(sentencepiece(0, prefix=True))
    encoded = tokenizer.encode("zé<tag>a", add_special_tokens=False)
    assert encoded.tokens[:4] == [SPACE, "<0x7A>", "<0xC3>", "<0xA9>"]
    assert "<tag>" in encoded.tokens
    for text in ("a b  c", " a", "z é 今天", "abcd"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    # llama.cpp adds BOS where a sentencepiece file says nothing about it
    assert tokenizer.encode("a").ids[0] == 1
    assert tokenizer_config(sentencepiece(0, prefix=True))["add_bos_token"] is True


def test_bos_and_eos_as_the_file_says():
    metadata = sentencepiece(0, prefix=False) | {
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": True,
    }
    ids = build_tokenizer(metadata).encode("a").ids
    assert ids[0] != 1
    assert ids[-1] == 2


def test_the_end_of_a_turn_also_stops():
    metadata = byte_level("gpt-2", tokens=("<|im_end|>", "<end_of_turn>"))
    metadata["tokenizer.ggml.token_type"][-2] = CONTROL
    size = len(metadata["tokenizer.ggml.tokens"])
    assert stop_ids(metadata) == [0, size - 2]  # the last one is no control token here: ordinary text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer.ggml.model": "bert"}, "kind 'bert'"),
        ({"tokenizer.ggml.pre": "new"}, "pre-tokenizer 'new'"),
        ({"tokenizer.ggml.merges": None}, "without merges"),
        ({"tokenizer.ggml.tokens": []}, "no vocabulary"),
        ({"tokenizer.ggml.token_type": [1]}, "token types"),
    ],
)
def test_what_is_not_known_is_refused(change, message):
    with pytest.raises(ModelError, match=message) as caught:
        build_tokenizer(byte_level("gpt-2") | change)
    assert "\n" not in str(caught.value)


def test_a_token_listed_twice_is_refused():
    with pytest.raises(ModelError, match="twice"):
        build_tokenizer(byte_level("gpt-2", tokens=("aa", "aa")))
