"""ROUGE against rouge-score 0.1.2: values stored with their source, and the package itself where it is installed."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lydite.metrics.rouge import TYPES, rouge, signature
from lydite.metrics.words import words_of

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "rouge_score_0_1_2.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("stem", [False, True])
def test_stored_values_of_rouge_score(stem):
    for case in ORACLE["cases"]:
        found = rouge(case["answer"], case["targets"], stem=stem)
        for name, (precision, recall, f1) in case["stemmed" if stem else "plain"].items():
            one = found[name]
            assert (one.precision, one.recall, one.f1) == pytest.approx((precision, recall, f1), abs=1e-9), name


# ------------------------------------------------------------------------------- a plain table beside the bits


def table_hits(answer, target):
    """ROUGE-Lsum's hits by the full table and the step-by-step walk of ROUGE-1.5.5."""
    left = [{w: sum(line.count(w) for line in side) for line in side for w in line} for side in (answer, target)]
    hits = 0
    for ref in target:
        union = set()
        for can in answer:
            t = [[0] * (len(can) + 1) for _ in range(len(ref) + 1)]
            for i in range(1, len(ref) + 1):
                for j in range(1, len(can) + 1):
                    same = ref[i - 1] == can[j - 1]
                    t[i][j] = t[i - 1][j - 1] + 1 if same else max(t[i - 1][j], t[i][j - 1])
            i, j = len(ref), len(can)
            while i and j:
                if ref[i - 1] == can[j - 1]:
                    union.add(i - 1)
                    i, j = i - 1, j - 1
                elif t[i][j - 1] > t[i - 1][j]:
                    j -= 1
                else:
                    i -= 1
        for word in (ref[i] for i in sorted(union)):
            if left[0].get(word, 0) > 0 and left[1].get(word, 0) > 0:
                hits += 1
                left[0][word] -= 1
                left[1][word] -= 1
    return hits


LINES = st.lists(st.lists(st.sampled_from("abcd"), max_size=9), min_size=1, max_size=4)


@settings(max_examples=100, deadline=None)
@given(LINES, LINES)
def test_summary_level_is_the_table_walk(answer, target):
    hits = table_hits(answer, target)
    said, wanted = (sum(map(len, side)) for side in (answer, target))
    texts = ["\n".join(" ".join(line) for line in side) for side in (answer, target)]
    found = rouge(texts[0], [texts[1]], ["rougeLsum"])["rougeLsum"]
    assert found.precision == pytest.approx(hits / said if said and wanted else 0.0)
    assert found.recall == pytest.approx(hits / wanted if said and wanted else 0.0)


def test_by_hand():
    # Lin 2004: "police killed the gunman" / "police kill the gunman" / "the gunman kill police".
    one = rouge("police kill the gunman", ["police killed the gunman"])
    other = rouge("the gunman kill police", ["police killed the gunman"])
    assert (one["rougeL"].f1, other["rougeL"].f1) == (0.75, 0.5)
    assert one["rouge2"].f1 == other["rouge2"].f1 == pytest.approx(1 / 3)
    # Section 3.2 of the same: w1..w5 against (w1 w2 w6 w7 w8) and (w1 w3 w8 w9 w5): the union is w1 w2 w3 w5.
    union = rouge("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", ["w1 w2 w3 w4 w5"])["rougeLsum"]
    assert union.recall == pytest.approx(4 / 5)


def test_best_reference_by_type():
    found = rouge("a b c d", ["d c b a", "a b x y z"])
    assert found["rouge1"].f1 == 1.0
    assert found["rouge2"].recall == 1 / 4


@pytest.mark.parametrize(
    ("language", "answer", "target", "rouge1", "rouge2"),
    [
        ("zh", "今天天气好", "今天 天气很好。", 10 / 11, 6 / 9),
        ("ja", "東京タワー", "東京タワーへ", 10 / 11, 8 / 9),
        ("th", "แมวดำ", "แมวขาว", 2 * 3 / (5 + 6), 2 * 2 / (4 + 5)),
        ("ar", "كِتَابٌ جديد", "كتاب قديم", 0.5, 0.0),
        ("ru", "Привет, мир!", "привет мир", 1.0, 1.0),
        ("fr", "le café noir", "le cafe noir", 2 / 3, 0.0),
    ],
)
def test_other_languages(language, answer, target, rouge1, rouge2):
    found = rouge(answer, [target], language=language)
    assert (found["rouge1"].f1, found["rouge2"].f1) == pytest.approx((rouge1, rouge2))
    assert rouge(target, [target], language=language)["rougeLsum"].f1 == 1.0


@pytest.mark.parametrize("language", ["en", "zh", "th", "ar", "ru", "hi"])
def test_lines_end_words(language):
    words = words_of(language)
    rng = random.Random(3)
    for _ in range(50):
        lines = ["".join(rng.choices("ab 9é中のแม้ كِт.-", k=8)) for _ in range(3)]
        assert words("\n".join(lines)) == [word for line in lines for word in words(line)]


def test_words_by_language():
    assert words_of("en")("Don't re-do café №5") == ["don", "t", "re", "do", "caf", "5"]
    assert words_of("en", stem=True)("dying relational ties") == ["die", "relat", "tie"]
    assert words_of("zh")("ＡＢ１２，我们3月") == ["ab12", "我", "们", "3", "月"]
    assert words_of("hi")("हिन्दी भाषा") == ["हिन्दी", "भाषा"]


OTHERS = {
    "zh": ("今天天气很好，我们去了北京。", "今天 天气不好，我们没去 NBA 3 场。"),
    "ja": ("東京タワーへ行きました。", "東京の塔へ行った。"),
    "th": ("แมวดำนอนอยู่บนเก้าอี้", "แมวขาวนอนบนโต๊ะ"),
    "ar": ("كِتَابٌ جديد على الطاولة", "كتاب قديم على الطاولة"),
    "ru": ("Привет, мир! Новый дом стоит.", "Старый дом стоит у реки, привет."),
}


@pytest.mark.parametrize("language", OTHERS)
def test_the_package_with_words_of_other_languages(language):
    """rouge-score counts what it is given: with our words for a language its numbers are ours, with its own they are 0."""
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    answer, target = OTHERS[language]

    class Words:
        def tokenize(self, text):
            return words_of(language)(text)

    theirs = scorer.RougeScorer(list(TYPES), tokenizer=Words()).score(target, answer)
    ours = rouge(answer, [target], language=language)
    assert {name: one.f1 for name, one in ours.items()} == pytest.approx(
        {name: one.fmeasure for name, one in theirs.items()}, abs=1e-9
    )
    assert ours["rouge1"].f1 > 0.3
    if language not in ("zh",):  # which has 3 and NBA in one of the two
        assert scorer.RougeScorer(["rouge1"]).score(target, answer)["rouge1"].fmeasure == 0


@pytest.mark.parametrize("text", [text for pair in OTHERS.values() for text in pair] + ["A1 磨坊很旧。It's 3.5万！"])
def test_chinese_characters_are_cut_as_sacrebleu_cuts_them(text):
    from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

    ours = [word for word in words_of("zh")(text) if len(word) == 1 and "\u4e00" <= word <= "\u9fff"]
    theirs = [word for word in TokenizerZh()(text).split() if len(word) == 1 and "\u4e00" <= word <= "\u9fff"]
    assert ours == theirs


def test_refusals_and_signature():
    with pytest.raises(ValueError, match="Porter"):
        rouge("a", ["a"], language="de", stem=True)
    with pytest.raises(ValueError, match="rouge9"):
        rouge("a", ["a"], ["rouge9"])
    with pytest.raises(ValueError, match="target"):
        rouge("a", [])
    assert signature("zh", num_references=0) == "nrefs:var|score:f1|tok:unicode|sents:lines"
    assert signature(stem=True) == "nrefs:1|score:f1|tok:ascii+porter|sents:lines"


def test_the_package_itself_where_it_is():
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    rng = random.Random(5)
    for stem in (False, True):
        peer = scorer.RougeScorer(list(TYPES), use_stemmer=stem)
        for _ in range(50):
            texts = [" ".join(rng.choices(["the", "running", "\n", "dogs", "ran", "a."], k=20)) for _ in range(3)]
            theirs = peer.score_multi(texts[1:], texts[0])
            ours = rouge(texts[0], texts[1:], stem=stem)
            for name in TYPES:
                assert ours[name].f1 == pytest.approx(theirs[name].fmeasure, abs=1e-9)
