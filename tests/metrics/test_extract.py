"""Reading answers out of text."""

import pytest

from lydite.metrics.extract import canonical_number, extract, extract_by, last_number, letter, parse_rules


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("B", "B"),
        (" b) because it rains", "B"),
        ("(C)", "C"),
        ("**D**", "D"),
        ("A. dry palms", "A"),
        ("B\nQuestion: next", "B"),
        ("The answer is C.", "C"),
        ("First I thought the answer is A, but no: the answer is B", "B"),
        ("答案：D", "D"),
        ("正确答案是 B，因为", "B"),
        ("（Ａ）", "A"),
        ("I would go with D", "D"),
        ("A dog would do it", None),
        ("I think so", None),
        ("It could be A or C", None),
        ("E", None),
        ("Because", None),
        ("", None),
        ("Don't know", None),
    ],
)
def test_letter(text, found):
    assert letter(text, 4) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("3 * 6 = 18. The answer is 18.", "18"),
        ("so $1,250.50 in all", "1250.5"),
        ("7-4", "4"),
        ("it fell to -4", "-4"),
        ("答案是２４。", "24"),
        ("1, 2, 3", "3"),
        ("about .5 litres", "0.5"),
        ("in 12,5 parts", "5"),
        ("0.0", "0"),
        ("−3 degrees", "-3"),
        ("no number", None),
        ("version 1.2.3", "3"),
    ],
)
def test_last_number(text, found):
    assert last_number(text) == found


@pytest.mark.parametrize(
    ("text", "canonical"), [("1,000", "1000"), ("1e3", None), ("", None), ("50%", "50"), ("007", "7"), ("100", "100")]
)
def test_canonical_number(text, canonical):
    assert canonical_number(text) == canonical


def test_rules_are_tried_in_order():
    rules = parse_rules([r"regex:####\s*(-?[\d,]+)", "last_number"])
    assert extract("so 5 + 6\n#### 1,1\nand 99", rules) == "1,1"
    assert extract("so 5 + 6 makes 11", rules) == "11"
    assert extract("who knows", rules) is None


def test_after_takes_the_last_marker_to_the_end_of_its_line():
    rules = parse_rules(["after:Answer:"])
    assert extract("Answer: one\nAnswer: two \nmore", rules) == "two"
    assert extract("no marker", rules) is None


def test_plain_rules():
    assert extract("\n\n first \nsecond", parse_rules(["first_line"])) == "first"
    assert extract(" all of it \n", ()) == "all of it"
    assert extract("  \n", ()) is None
    assert extract("the answer is b", parse_rules(["letter"]), 2) == "B"
    assert extract("xaby", parse_rules(["regex:a."])) == "ab"


@pytest.mark.parametrize("rule", ["lettre", "after:", "regex:(", "last_number:x"])
def test_unknown_rules_are_refused(rule):
    with pytest.raises(ValueError, match="extract rule"):
        parse_rules([rule])


@pytest.mark.parametrize(
    ("text", "path", "answer"),
    [
        ('Sure: {"answer": "Paris", "why": {"n": 2}}', "answer", "Paris"),
        ('{"answer": 4} then {"answer": 5}', "answer", "5"),
        ('{"a": {"b": [1, "é"]}}', "a.b", '[1, "é"]'),
        ('{not json} {"answer": true}', "answer", "true"),
        ('{"answer": "cut', "answer", None),
        ('{"answer": null}', "answer", None),
        ('{"other": 1}', "answer", None),
        ("{" * 5000, "answer", None),
    ],
)
def test_json_fields(text, path, answer):
    assert extract(text, parse_rules([f"json:{path}"])) == answer


def test_the_rule_that_found_it_is_told():
    rules = parse_rules(["json:answer", "after:Answer:", "last_number"])
    assert extract_by('{"answer": 3}', rules) == ("3", 0)
    assert extract_by("Answer: 4 figs", rules) == ("4 figs", 1)
    assert extract_by("it is 5", rules) == ("5", 2)
    assert extract_by("no idea", rules) == (None, None)
    assert extract_by(" x ", ()) == ("x", None)
