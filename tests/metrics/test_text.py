"""Text metrics: the rules of SQuAD, MLQA and TriviaQA by hand."""

import pytest

from lydite.metrics.text import exact_match, mlqa_tokens, squad_tokens, token_f1, token_f1_or_nothing

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


# From the rules of mlqa_evaluation_v1.py: lower case, punctuation of Unicode dropped (not replaced), the articles of the
# language replaced by a space, characters of Chinese one by one.
MLQA = [
    ("en", "The «Old» Mill-House", ["old", "millhouse"]),
    ("es", "¿El molino de la Mancha?", ["molino", "de", "mancha"]),
    ("de", "Die Mühle des Müllers", ["mühle", "müllers"]),
    ("vi", "cái cối xay của Lan", ["cối", "xay", "lan"]),
    ("ar", "الطاحونة القديمة", ["طاحونة", "قديمة"]),
    ("hi", "पुरानी चक्की।", ["पुरानी", "चक्की"]),
    ("zh", "《旧磨坊》 Mill 2号", ["旧", "磨", "坊", "mill", "2", "号"]),
]


@pytest.mark.parametrize(("language", "text", "expected"), MLQA)
def test_mlqa_normalisation(language, text, expected):
    assert mlqa_tokens(text, language) == expected


def test_mlqa_scores():
    assert exact_match("die Mühle", ["Mühle"], "mlqa", "de") == 1.0
    assert exact_match("die Mühle", ["Mühle"], "squad") == 0.0
    assert token_f1("旧的磨坊", ["旧磨坊"], "zh", "mlqa") == pytest.approx(2 * 3 / (4 + 3))


@pytest.mark.parametrize(
    ("answer", "target", "match"),
    [
        ("Sunset_Boulevard", "sunset boulevard", 1),
        ("rock-’n’-roll", "rock n roll", 1),
        ("The Beatles'", "beatles", 1),
        ("U.S.A.", "usa", 0),
    ],
)
def test_trivia_normalisation(answer, target, match):
    assert exact_match(answer, [target], "trivia") == match


def test_f1_where_a_side_is_empty():
    assert token_f1_or_nothing("", [""]) == 1.0
    assert token_f1_or_nothing("the", ["a"]) == 1.0
    assert token_f1_or_nothing("mill", [""]) == 0.0
    assert token_f1_or_nothing("", ["mill"]) == 0.0
    assert token_f1_or_nothing("old mill", ["mill", "inn"]) == pytest.approx(2 / 3)
