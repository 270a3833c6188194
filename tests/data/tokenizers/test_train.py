"""Training: hand-worked merges, the library's own training, round trips, Chinese, the same twice."""

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lydite.data.tokenizers import TokenizerSettings, pieces, train_tokenizer
from lydite.data.tokenizers.alphabet import continues
from lydite.errors import DataError, UserError

ENGLISH = [
    "The quick brown fox jumps over the lazy dog, and the dog doesn't mind at all.\n",
    "She sells sea shells by the sea shore; the shells she sells are sea shells, I'm sure.\n",
    "How much wood would a woodchuck chuck if a woodchuck could chuck wood in 1984?\n",
] * 3
CHINESE = [
    "今天天气很好，我们去公园玩。公园里有很多人！\n",
    "天气不好的时候，我们在家里看书，不去公园。\n",
    "人人都说这本书很好看：“真好看！”\n",
] * 3


def trained(texts=None, **given):
    return train_tokenizer(lambda: texts or ENGLISH + CHINESE, TokenizerSettings(**given))


def model(found):
    return json.loads(found.tokenizer.to_str())["model"]


def test_merges_by_hand():
    """Pieces ab 10 times, abc 5, xy 7: the pairs are a+b 15, x+y 7, then ab+c 5. Nothing else was seen twice."""
    texts = [" ".join(["ab"] * 10 + ["abc"] * 5 + ["xy"] * 7).replace(" ", "\n")]
    found = trained(texts, vocab_size=400, min_frequency=5)
    assert [tuple(m) for m in model(found)["merges"]] == [("a", "b"), ("x", "y"), ("ab", "c")]
    assert found.facts.vocab_size == 256 + 3 + 1


def test_on_ascii_it_is_the_librarys_byte_level_bpe():
    ours = trained(ENGLISH, vocab_size=330)
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pieces.byte_level()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    theirs.train_from_iterator(
        ENGLISH, trainers.BpeTrainer(vocab_size=329, initial_alphabet=alphabet, show_progress=False, min_frequency=2)
    )
    for text in ENGLISH:
        # Pairs of equal frequency may come in another order, since a space has another number there.
        assert len(ours.tokenizer.encode(text).ids) == pytest.approx(len(theirs.encode(text).ids), abs=2)
    ours_pieces, theirs_pieces = set(model(ours)["vocab"]), set(theirs.get_vocab())
    assert len(ours_pieces & theirs_pieces) > 0.9 * len(theirs_pieces)


def raw_bytes(token):
    """GPT-2's alphabet read backwards: printable bytes stand for themselves, the others are counted off from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    table = {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(rest)}
    return bytes(table[c] for c in token)


def test_no_token_holds_parts_of_two_characters():
    found = trained(CHINESE, vocab_size=420)
    many = 0
    for token in set(model(found)["vocab"]) - {"<|endoftext|>"}:
        raw = raw_bytes(token)
        try:
            many += len(raw.decode()) > 1
        except UnicodeDecodeError:
            # The beginning of one character, or a single byte.
            assert len(raw) == 1 or (raw[0] >= 0xC2 and all(0x80 <= b < 0xC0 for b in raw[1:])), raw
    assert many > 10
    text = "天气很好，公园"
    assert found.tokenizer.decode(found.tokenizer.encode(text).ids) == text
    assert len(found.tokenizer.encode("天气").ids) == 1


def test_full_width_punctuation_stands_apart():
    for kind, family in (("bpe", "gpt2"), ("unigram", "t5"), ("wordpiece", "bert")):
        tokenizer = trained(vocab_size=700, kind=kind, family=family).tokenizer
        tokens = [tokenizer.decode([i]) for i in tokenizer.encode("公园，天气！", add_special_tokens=False).ids]
        assert {"，", "！"} <= set(tokens), (kind, tokens)


def test_wordpiece_has_a_token_for_each_chinese_character():
    tokenizer = trained(kind="wordpiece", family="bert", vocab_size=400).tokenizer
    assert tokenizer.encode("公园很好", add_special_tokens=False).tokens == ["公", "园", "很", "好"]
    assert not [token for token in tokenizer.get_vocab() if token.startswith("##") and not continues(token[2])]
    # Letters seen only at the beginning of a word can stand within one.
    assert "[UNK]" not in tokenizer.encode("oTHer", add_special_tokens=False).tokens


KINDS = [
    {"kind": "bpe", "family": "gpt2"},
    {"kind": "bpe", "family": "roberta"},
    {"kind": "unigram", "family": "llama"},
    {"kind": "characters", "family": "llama", "byte_fallback": True},
]
LOSSLESS = [(given, trained(vocab_size=700, **given).tokenizer) for given in KINDS]


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_text_comes_back(text):
    for given_, tokenizer in LOSSLESS:
        if given_["kind"] == "unigram":
            text = unicodedata.normalize("NFC", text).replace("▁", "_")
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text, given_


@pytest.mark.parametrize(
    "text", ["  two spaces", "tab\tand\r\nbreaks\n\n", "<0x41> <0xE4>", " ", "ａｂ，１２", "𠮷 👩‍👩‍👧"]
)
def test_awkward_texts_come_back(text):
    for given_, tokenizer in LOSSLESS:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text, given_


@pytest.mark.parametrize(
    "given_",
    [
        {"kind": "bpe", "family": "llama"},
        {"kind": "wordpiece", "family": "electra"},
        {"kind": "unigram", "family": "xlnet"},
        {"kind": "characters", "family": "gpt2"},
    ],
)
def test_the_same_twice_and_as_large_as_asked(given_):
    first, second = (trained(vocab_size=640, multiple_of=64, **given_) for _ in range(2))
    assert first.tokenizer.to_str() == second.tokenizer.to_str()
    assert first.facts.vocab_size % 64 == 0
    ids = sorted(first.tokenizer.get_vocab(with_added_tokens=True).values())
    assert ids == list(range(first.facts.vocab_size))
    assert first.facts.vocab_size <= 640


def test_rare_characters_are_bytes_or_unknown():
    texts = ["的一是不" * 500 + "龘"]
    bpe = trained(texts, vocab_size=400, character_coverage=0.99)
    assert bpe.facts.num_kept_characters == 4
    assert bpe.facts.coverage == pytest.approx(2000 / 2001)
    assert len(bpe.tokenizer.encode("龘").ids) == 3
    assert bpe.tokenizer.decode(bpe.tokenizer.encode("龘").ids) == "龘"
    small = trained(texts, kind="characters", family="gpt2", vocab_size=18)
    assert small.facts.num_kept_characters == 5
    assert small.tokenizer.encode("是囧").tokens == ["是", "<unk>"]


def test_the_alphabet_of_characters_is_that_of_the_librarys_trainer():
    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pieces.characters_splitter()
    words.train_from_iterator(ENGLISH + CHINESE, trainers.WordLevelTrainer(show_progress=False))
    ours = set(trained(kind="characters", vocab_size=1000).tokenizer.get_vocab())
    assert ours == set(words.get_vocab()) | {"<unk>", "<|endoftext|>"}


def test_names_of_special_tokens_in_the_text_are_not_learned():
    found = trained(["<|endoftext|> and <|endoftext|> again\n"] * 20, vocab_size=400)
    assert found.tokenizer.encode("<|endoftext|>").ids == [found.facts.vocab_size - 1]
    assert "<|" not in found.tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"vocab_size": 100}, "take 273 or more"),
        ({"family": "gpt9"}, "choose one of gpt2, llama"),
        ({"kind": "wordpiece", "family": "bert", "byte_fallback": True}, "no bytes to fall back on"),
        ({"byte_fallback": False}, "made of bytes"),
        ({"character_coverage": 0.1}, "between 0.9 and 1"),
        ({"kind": "wordpiece", "family": "bert", "normalization": "nfkc"}, "leave normalization out"),
        ({"multiple_of": 0}, "1 or more"),
    ],
)
def test_settings_that_do_not_go_together(given_, message):
    with pytest.raises(UserError, match=message):
        trained(**{"vocab_size": 700} | given_)


@pytest.mark.parametrize("text", ["", " \n\n\t"])
def test_no_text(text):
    for kind, family in (("bpe", "gpt2"), ("unigram", "t5")):
        with pytest.raises(DataError, match="hold no text"):
            trained([text], vocab_size=700, kind=kind, family=family)


@pytest.mark.parametrize("text", ["a", "你", "\x00a", "😀"])
def test_one_character_is_text_enough(text):
    for given_ in (*KINDS, {"kind": "wordpiece", "family": "bert"}, {"kind": "unigram", "family": "t5"}):
        assert trained([text], vocab_size=800, **given_).tokenizer.encode(text).ids


def test_nfkc_folds_full_width_and_the_default_does_not():
    assert trained(kind="unigram", family="t5", vocab_size=700).tokenizer.encode("，").tokens[1] == "，"
    folded = trained(kind="unigram", family="t5", vocab_size=700, normalization="nfkc").tokenizer
    assert "，" not in folded.get_vocab()
    assert folded.decode(folded.encode("ａ，").ids) == "a,"
