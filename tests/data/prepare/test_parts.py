"""The parts of `lydite prepare`, each against something outside it."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lydite.data.prepare.clean import cut, normalize
from lydite.data.prepare.duplicates import content_key, minhash, similarity, small
from lydite.data.prepare.encode import Encoder
from lydite.data.prepare.ngrams import is_han, ngram_hashes, numbers, units
from lydite.data.prepare.overlap import BannedText, Overlap
from lydite.data.prepare.recipe import Settings, read_recipe
from lydite.data.prepare.resolve import repeats
from lydite.data.prepare.rules import c4, gopher_quality, gopher_repetition
from lydite.data.prepare.sentences import sentence_starts
from lydite.data.prepare.simple import save_bytes_tokenizer, save_characters_tokenizer
from lydite.errors import UserError

ENGLISH = (
    "It was a bright cold day in April, and the clocks were striking thirteen. Nobody in the street seemed to think that "
    "this was odd. They had bread to buy and letters to send, and what the clocks said was of no use to them. An old man "
    "with a grey coat stopped to look up at the tower, smiled, and went on his way to the market by the river."
)
CHINESE = (
    "清晨的集市上已经挤满了人，卖菜的老人把刚摘的青菜摆得整整齐齐。孩子们在摊位之间跑来跑去，谁也不肯先回家吃早饭。"
    "河边的茶馆飘出一阵香气，两位客人正在下棋，旁边围着几个看热闹的人。等太阳升到屋顶，街上才渐渐安静下来。"
)


def sentences(text):
    starts = sentence_starts(text)
    return [text[a:b].strip() for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]


@pytest.mark.parametrize(
    "parts",
    [
        ["Mr. Smith paid 3.50 dollars.", "He left at 5 p.m. on Friday.", "Did he?", "“Yes!” she said."],
        ["The U.S. Senate met.", "J. R. R. Tolkien wrote (a lot).", "So did I.", "Then it ended..."],
        ["子曰：“学而时习之，不亦说乎？", "有朋自远方来，不亦乐乎？”", "他走了。", "她没有！！"],
        ["First line", "second line\n\n", "Third."],
    ],
)
def test_sentences(parts):
    chinese = any(is_han(part) for part in parts)
    assert sentences(("" if chinese else " ").join(parts)) == [part.strip() for part in parts] or (
        parts[0] == "First line" and sentences("\n".join(parts)) == [part.strip() for part in parts]
    )


@given(st.text(alphabet='a .!?\n。！”"中A', max_size=60))
def test_sentence_starts_are_ordered_and_begin_with_what_can_be_seen(text):
    starts = sentence_starts(text)
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert all(not text[start].isspace() for start in starts[1:])


def test_normal_form():
    assert normalize("e\u0301\r\nx\x00\ufeff ", "NFC") == "é\nx"
    assert normalize("ﬁ ①", "NFC") == "ﬁ ①"
    assert normalize("ﬁ ①", "NFKC") == "fi 1"
    assert normalize("e\u0301", "none") == "e\u0301"
    assert normalize("a\ud800b", "NFC") == "a\ufffdb"


@given(st.text(alphabet="ab \n", max_size=900), st.integers(100, 200))
def test_cutting_loses_no_word(text, longest):
    text = text.strip()
    pieces = list(cut(text, longest))
    assert all(len(piece) <= longest for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_units():
    assert units("Don't STOP, 2 cats_") == ["don", "t", "stop", "2", "cats"]
    assert units("我爱NLP。かな") == ["我", "爱", "nlp", "か", "な"]
    assert is_han(CHINESE)
    assert not is_han(ENGLISH)


def test_minhash_estimates_the_jaccard_similarity():
    rng = np.random.default_rng(1)
    words = [str(n) for n in range(3000)]
    for share in (0.5, 0.8, 0.95):
        one = words[:2000]
        start = round(2000 * (1 - share) / (1 + share))  # overlap of two windows of 2,000 with this Jaccard similarity
        other = words[start : start + 2000]
        true = len({*one} & {*other}) / len({*one} | {*other})
        values = [numbers(list(rng.permutation(text))) for text in (one, other)]
        signatures = small(minhash(values, 1))
        estimate = float(similarity(signatures[:1], signatures[1:])[0])
        assert abs(estimate - true) < 4 * (true * (1 - true) / 120) ** 0.5 + 0.01
    assert float(similarity(signatures[:1], signatures[:1])[0]) == 1


def test_signatures_do_not_depend_on_the_neighbours():
    documents = [numbers(units(text)) for text in (ENGLISH, CHINESE, "", "one", ENGLISH * 40)]
    together = minhash(documents, 5)
    assert all((minhash([one], 5)[0] == row).all() for one, row in zip(documents, together, strict=True))


def test_keys_pass_over_white_space_only():
    assert content_key("a  b\n", 0) == content_key("a b", 0) != content_key("ab", 0)
    assert content_key("a b", 0) != content_key("a b", 1)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30), st.integers(1, 5))
def test_ngram_hashes_are_equal_where_ngrams_are(words, n):
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    hashes = ngram_hashes(numbers(words), n).tolist()
    assert len(hashes) == len(grams)
    assert len(set(zip(grams, hashes, strict=True))) == len(set(grams)) == len(set(hashes))


def find(overlap, text):
    words = units(text)
    return overlap.find(words, numbers(words))


def test_overlap_with_evaluation_items():
    question = "Which of these animals sleeps through the winter in a hole under the snow: a bear or a crow?"
    short = "why does ice float on the cold water"
    chinese = "下列哪一种动物会在冬天躲进洞里睡上几个月"
    overlap = Overlap(
        [
            BannedText("a", "1", question),
            BannedText("a", "2", short),
            BannedText("b", "3", chinese),
            BannedText("b", "4", "yes"),
        ],
        13,
        8,
    )
    assert overlap.num_texts == {"a": 2, "b": 2}
    assert overlap.num_too_short == {"b": 1}
    hit = find(overlap, "He asked: which of these ANIMALS sleeps -- through the winter, in a hole under the ice")
    assert (hit.task, hit.item, hit.num_shared) == ("a", "1", 1)  # 13 words in a row, and no more
    assert hit.shared == "which of these animals sleeps through the winter in a hole under the"
    assert find(overlap, "which of these animals sleeps through the winter in a hole under") is None  # 12 words
    assert find(overlap, f"so {short}, then").item == "2"
    assert find(overlap, f"他问：“{chinese}？”").item == "3"
    assert find(overlap, "下列哪一种动物会在冬天躲进") is not None
    assert find(overlap, "下列哪一种动物会在冬天躲") is None
    assert find(overlap, ENGLISH) is None
    assert find(overlap, "yes") is None


def quality(text, language=""):
    return gopher_quality(text, units(text), language)


def test_gopher_keeps_prose_in_both_languages_and_takes_what_the_paper_names():
    assert quality(ENGLISH, "en") is None
    assert quality(CHINESE, "zh") is None
    assert quality("a few words", "en") == "few words"
    assert quality("word " * 100_001) == "words"
    assert quality("# one " * 60) == "symbols"
    assert quality("\n".join(["- the cat and the dog have it"] * 20)) == "bullets"
    assert (
        quality("\n".join(["the cat and the dog have it…"] * 5 + ["that is to be with them of old times"] * 6))
        == "ellipses"
    )
    assert quality("a b " * 40) == "word length"
    assert quality("1234 5678 wort " * 30) == "letters"
    assert quality("wort " * 60, "en") == "stop words"
    assert quality("wort " * 60, "de") is None


def test_gopher_repetition():
    def judge(text):
        return gopher_repetition(text, units(text), numbers(units(text)))

    assert judge(ENGLISH) is None
    assert judge(CHINESE) is None
    assert judge("\n".join([ENGLISH, "again"] + ["again"] * 9)) == "lines"
    assert judge("spam spam eggs " * 30) == "top 2-gram"
    assert judge(" ".join([ENGLISH, ENGLISH])).startswith("repeated")


def test_c4():
    lines = [
        "This is a line of five words.",
        "Menu",
        "这一行也是一个完整的句子。",
        "Turn on JavaScript to see this page.",
        "It ends here, and that is that!",
    ]
    text, why = c4("\n".join(lines), [len(units(line)) for line in lines])
    assert why is None
    assert text == "\n".join([lines[0], lines[2], lines[4]])
    assert c4("if (x) { y }", [3])[1] == "brace"
    assert c4("Lorem ipsum dolor", [3])[1] == "lorem ipsum"
    assert c4("Only one sentence of many words.", [6])[1] == "sentences"


def test_mixture():
    sizes = {"en": 900, "zh": 90, "yo": 10, "none": 0}
    assert repeats(sizes, {}, Settings()) == dict.fromkeys(sizes, 1.0)
    by_weight = repeats({"a": 100, "b": 50}, {"a": 1, "b": 1}, Settings())
    assert by_weight == {"a": 1.0, "b": 2.0}
    warm = repeats(sizes, {}, Settings(temperature=2, max_repeats=100))
    used = {part: sizes[part] * rate for part, rate in warm.items()}
    assert warm["en"] == pytest.approx(1)
    assert used["zh"] / used["yo"] == pytest.approx(3)  # (90 / 10) ** (1 / 2)
    assert used["en"] / used["yo"] == pytest.approx(90**0.5)
    capped = repeats(sizes, {}, Settings(temperature=2, max_repeats=4))
    assert max(capped.values()) == pytest.approx(4)
    assert capped["en"] < 1
    assert capped["en"] / capped["yo"] == pytest.approx(warm["en"] / warm["yo"])


def bpe(folder, cutter, texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = cutter
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@pytest.fixture(scope="module", params=["gpt2", "llama3", "prefix", "bytes", "characters"])
def encoder(request, tmp_path_factory):
    """Encoders of every kind, and the plain tokenizer beside each."""
    from tokenizers import Regex

    folder, texts = tmp_path_factory.mktemp(request.param), [ENGLISH, CHINESE] * 3
    if request.param == "bytes":
        save_bytes_tokenizer(folder)
    elif request.param == "characters":
        save_characters_tokenizer(folder, "".join(texts))
    else:
        split = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
        cutter = {
            "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
            "llama3": pre_tokenizers.Sequence(
                [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
            ),
            "prefix": pre_tokenizers.ByteLevel(add_prefix_space=True),
        }[request.param]
        bpe(folder, cutter, texts)
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    plain.encode_special_tokens = True
    return Encoder(folder), plain, request.param


NASTY = [
    "It's  we'LL\n\n  'tis\t x ",
    "a<|endoftext|>b <s>",
    "naïve café – “so”… 1234567 ½ ²",
    "日本語。テスト!  Ａ１",
    "\u0378\u2c2f \u1c89 \U0001f600\u200d\u180e x",
    "ſ'ſ \u2028 \x85 \x1c z",
    "   ",
    "ǅ Ωμέγα кот",
]


def test_ids_are_those_of_the_tokenizer(encoder):
    ours, plain, _ = encoder
    texts = [ENGLISH, CHINESE, *NASTY, ENGLISH + CHINESE] * 3
    for text, (ids, starts) in zip(texts, ours.encode(texts), strict=True):
        assert ids.tolist() == plain.encode(text, add_special_tokens=False).ids
        assert len(starts) == 0 if not len(ids) else starts[0] == 0 and (np.diff(starts.astype(int)) > 0).all()


def test_some_are_encoded_by_words(encoder):
    ours, _, kind = encoder
    assert (ours._words is not None) == (kind in ("gpt2", "llama3", "bytes"))
    if kind == "gpt2":
        english, chinese, strange, empty = ours._words.encode([ENGLISH, CHINESE, NASTY[4], ""])
        assert english is not None
        assert chinese is not None
        assert strange is None
        assert empty is None


@given(st.text(alphabet=st.sampled_from(list("ab'sSlLdDtT19 \n\t\r.,!é中。\xa0\u3000“½")), max_size=40))
def test_words_are_cut_as_the_tokenizer_cuts_them(encoder_words, text):
    for ours, plain in encoder_words:
        assert ours.encode([text])[0][0].tolist() == plain.encode(text, add_special_tokens=False).ids


@pytest.fixture(scope="module")
def encoder_words(tmp_path_factory):
    from tokenizers import Regex

    split = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
    found = []
    for number, cutter in enumerate(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
        ]
    ):
        folder = bpe(tmp_path_factory.mktemp(f"w{number}"), cutter, [ENGLISH, CHINESE])
        found.append((Encoder(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))))
    return found


def test_sentence_offsets_are_tokens_that_hold_the_first_character(encoder):
    ours, plain, kind = encoder
    for text in (ENGLISH, CHINESE, ENGLISH + "\n" + CHINESE):
        [(_, starts)] = ours.encode([text])
        places = sentence_starts(text)
        assert len(starts) == len(places) > 2
        encoding = plain.encode(text, add_special_tokens=False)
        wanted = [encoding.char_to_token(place) for place in places]
        assert starts.tolist()[1:] == wanted[1:], kind


def test_simple_tokenizers_load_in_transformers_and_give_the_text_back(tmp_path):
    from transformers import AutoTokenizer

    save_bytes_tokenizer(tmp_path / "bytes")
    save_characters_tokenizer(tmp_path / "characters", ENGLISH + CHINESE)
    for name, size in (("bytes", 260), ("characters", 4 + len(set(ENGLISH + CHINESE)))):
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / name)
        assert len(tokenizer) == size
        assert tokenizer.decode(tokenizer(ENGLISH)["input_ids"]) == ENGLISH
        assert tokenizer.decode(tokenizer(CHINESE)["input_ids"]) == CHINESE
        assert tokenizer.eos_token_id == 2
        assert tokenizer.pad_token_id == 3
    assert re.fullmatch(r"(<unk>)+", tokenizer.decode(tokenizer("Ω")["input_ids"]))


def test_paths_of_a_file_and_of_a_variable(tmp_path, monkeypatch):
    path = tmp_path / "prepare.toml"
    path.write_text(
        'tokenizer = "$SOME_DATA/words"\n[[source]]\npath = "books"\n[[source]]\npath = "$SOME_DATA/more"\n'
    )
    with pytest.raises(UserError, match="the variable SOME_DATA is not set"):
        read_recipe(path, [], [])
    monkeypatch.setenv("SOME_DATA", "data")  # from where the command runs, as in the recipes of `lydite pretrain`
    found = read_recipe(path, [], [])
    assert [source.path for source in found.sources] == [str(tmp_path / "books"), "data/more"]
    assert found.tokenizer == "data/words"
