"""Text metrics: SQuAD's rules by hand, chrF against sacrebleu."""

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from lydite.metrics.text import CHRF, chrf, chrf_signature, exact_match, squad_tokens, token_f1

# Worked out by hand from the rules of the official script v1.1: lower case, then no punctuation, then no articles, then
# single spaces; F1 = 2 common / (answer + target) over bags of tokens.
SQUAD = [
    ("The Norman Conquest.", "norman conquest", 1, 1.0),
    ("in the 10th and 11th centuries", "10th and 11th centuries", 0, 8 / 9),
    ("a  cat,   an owl", "cat owl", 1, 1.0),
    ("theatre", "the atre", 0, 0.0),
    ("U.S.A.", "usa", 1, 1.0),
    ("blue blue red", "blue red red", 0, 4 / 6),
    ("twenty-four", "twenty four", 0, 0.0),
    ("", "nothing", 0, 0.0),
    ("the", "a", 1, 0.0),
]


@pytest.mark.parametrize(("answer", "target", "match", "f1"), SQUAD)
def test_squad_cases(answer, target, match, f1):
    assert exact_match(answer, [target], "squad") == match
    assert token_f1(answer, [target]) == pytest.approx(f1)


def test_the_best_reference_counts():
    assert token_f1("red car", ["blue bus", "the red car"]) == 1.0
    assert exact_match("red car", ["blue bus", "the red car"], "squad") == 1.0


@pytest.mark.parametrize(
    ("answer", "target", "match", "f1"),
    [
        ("《千家诗》", "千家诗", 1, 1.0),
        ("一袋橘子", "橘子", 0, 2 * 2 / (4 + 2)),
        ("308分。", "308 分", 1, 1.0),
        ("北京", "上海", 0, 0.0),
        ("24 次拦截", "拦截 24 次", 0, 1.0),
        ("NFL橄榄球", "nfl 橄榄球", 1, 1.0),
    ],
)
def test_chinese_counts_characters(answer, target, match, f1):
    assert exact_match(answer, [target], "squad", "zh") == match
    assert token_f1(answer, [target], "zh") == pytest.approx(f1)


def test_chinese_tokens():
    assert squad_tokens("它在2024年 得了NBA“冠军”！", "zh") == ["它", "在", "2024", "年", "得", "了", "nba", "冠", "军"]


@pytest.mark.parametrize(
    ("answer", "target", "match"),
    [
        ("1,250.0", "1250", 1),
        ("3.50", "3.5", 1),
        ("$18", "18", 1),
        ("-4", "4", 0),
        ("12 apples", "12", 0),
        ("x ", "x", 1),
    ],
)
def test_numbers_compare_as_numbers(answer, target, match):
    assert exact_match(answer, [target], "number") == match


def test_no_normalisation_keeps_case_and_signs():
    assert exact_match(" [1, 2]\n", ["[1, 2]"]) == 1.0
    assert exact_match("True", ["true"]) == 0.0


TEXT = st.text(st.sampled_from("abc de今天.é "), max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=6))
def test_chrf_is_sacrebleus(rows):
    answers = [row[0] for row in rows]
    references = [[row[1] for row in rows], [row[2] for row in rows]]
    judged = [chrf(row[0], row[1:]) for row in rows]
    ours = CHRF.finish(np.array([stats for _, stats in judged]).sum(0))
    assert 100 * ours == pytest.approx(sacrebleu.corpus_chrf(answers, references).score, abs=1e-9)
    for row, (value, _) in zip(rows, judged, strict=True):
        assert 100 * value == pytest.approx(sacrebleu.sentence_chrf(row[0], list(row[1:])).score, abs=1e-9)


def test_chrf_of_the_fields_known_mistake():
    # With the references in the wrong orientation this pair is 100.0 in sacrebleu; the right value is 89.16.
    assert round(100 * chrf("Me gusta pizza", ["Me gusta la pizza"])[0], 2) == pytest.approx(
        round(sacrebleu.corpus_chrf(["Me gusta pizza"], [["Me gusta la pizza"]]).score, 2)
    )
    assert chrf("Me gusta pizza", ["Me gusta la pizza"])[0] < 0.9


def test_chrf_finishes_many_resamples_at_once():
    stats = np.array([chrf("the cat sat", ["the cat sits"])[1], chrf("ab", ["xy"])[1], (0.0,) * 18])
    assert CHRF.finish(stats[None].repeat(4, 0)).shape == (4, 3)
    assert CHRF.finish(stats)[1:].tolist() == [0.0, 0.0]


def test_chrf_signature_is_sacrebleus():
    metric = sacrebleu.CHRF()
    metric.corpus_score(["a b"], [["a b"], ["c"]])
    assert chrf_signature(2) == str(metric.get_signature())
