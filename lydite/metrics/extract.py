"""Reading an answer out of generated text, by rules that are tried in order; the first that finds something wins.

A rule is written as one string, in task files and in Python alike:

    whole           the text without white space at its ends
    first_line      its first line that is not blank
    last_number     the last number, as canonical_number writes it
    letter          the letter of a choice ("B", "(b) because ...", "The answer is B.", "答案：B")
    after:MARKER    what follows the last MARKER, to the end of that line
    json:FIELD      the value of a field in the last JSON object of the text that has it ("a.b" for a field of a field)
    regex:PATTERN   the first group (else the whole) of the first match of a Python regular expression

Extraction is a pure function of the text, so stored outputs can be read again by other rules.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation

Rule = Callable[[str, int], str | None]
"""(text, number of choices) to the answer, or None where the rule finds none."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# A minus sign belongs to the number only where it does not follow a digit: in "7-4" it is a subtraction.
_NUMBER = re.compile(r"(?:(?<![\d.])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?:(?<!\d)-)?(?<!\d)\.\d+")
_SAYS = re.compile(
    r"(?:answer|option|choice|答案|选项|选择|应选|故选|选)\s*(?:is|are|为|是|应为)?\s*[:：]?\s*[*（(\[]*([A-Za-z])(?![A-Za-z'’])"
)
_LEADS = re.compile(r"[*（(\[\"'“]*([A-Za-z])(?:[*）)\].:：、,，。;；\"'”]|\s*$|\s*\n)")
# "A" and "I" before a word in small letters are words themselves; not so in "A or C", which names two letters.
_ALONE = re.compile(r"(?<![A-Za-z'’])(?![AI] (?!or\b|and\b)[a-z])([A-Z])(?![A-Za-z'’])")


def parse_rules(rules: Sequence[str]) -> tuple[Rule, ...]:
    """The rules that the strings name. Raises ValueError, in words for users, on an unknown name or a broken pattern."""
    return tuple(_parse(rule) for rule in rules)


def extract(text: str, rules: Sequence[Rule], num_choices: int = 0) -> str | None:
    """The answer by the first rule that finds one; without rules the stripped text. None: there is no answer."""
    return extract_by(text, rules, num_choices)[0]


def extract_by(text: str, rules: Sequence[Rule], num_choices: int = 0) -> tuple[str | None, int | None]:
    """The same with the position of the rule that found it; None without rules or answer."""
    if not rules:
        return text.strip() or None, None
    for position, rule in enumerate(rules):
        answer = rule(text, num_choices)
        if answer is not None and answer.strip():
            return answer.strip(), position
    return None, None


def canonical_number(text: str) -> str | None:
    """A number in one spelling (no separators, no trailing zeros), or None where the text is not just a number.

    Full-width digits and the Unicode minus are read; a currency sign before and a full stop or percent sign after
    are dropped.
    """
    plain = unicodedata.normalize("NFKC", text).replace("−", "-").strip().lstrip("$€£¥￥").rstrip(".%").strip()
    if not _NUMBER.fullmatch(plain):
        return None
    try:
        value = Decimal(plain.replace(",", ""))
    except InvalidOperation:
        return None
    return "0" if value == 0 else f"{value.normalize():f}"


def last_number(text: str) -> str | None:
    """The last number of the text in canonical spelling."""
    found = numbers(text)
    return found[-1] if found else None


def numbers(text: str) -> list[str]:
    """All numbers of the text in canonical spelling."""
    found = _NUMBER.findall(unicodedata.normalize("NFKC", text).replace("−", "-"))
    return [number for one in found if (number := canonical_number(one)) is not None]


def letter(text: str, num_choices: int) -> str | None:
    """The letter of a choice: at the very beginning, else after words like "answer is" (the last time they are used),
    else the only capital letter that stands alone."""
    allowed = LETTERS[:num_choices] if num_choices else LETTERS
    text = unicodedata.normalize("NFKC", text).strip()
    leads = _LEADS.match(text)
    if leads and leads[1].upper() in allowed:
        return str(leads[1]).upper()
    said = [str(found).upper() for found in _SAYS.findall(text) if found.upper() in allowed]
    if said:
        return said[-1]
    alone = {str(found) for found in _ALONE.findall(text) if found in allowed}
    return alone.pop() if len(alone) == 1 else None


_DECODER = json.JSONDecoder()


def json_field(text: str, path: Sequence[str]) -> str | None:
    """The field's value in the last JSON object that has it: text as it is, anything else as JSON."""
    found, place = None, text.find("{")
    while place >= 0:
        try:
            value, end = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        else:
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            if value is not None:
                found = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        place = text.find("{", end)
    return found


def _parse(rule: str) -> Rule:
    name, colon, rest = rule.partition(":")
    if not colon:
        plain: dict[str, Rule] = {
            "whole": lambda text, _: text.strip(),
            "first_line": lambda text, _: next((line for line in text.splitlines() if line.strip()), None),
            "last_number": lambda text, _: last_number(text),
            "letter": letter,
        }
        if name in plain:
            return plain[name]
    elif name == "after" and rest:
        return lambda text, _: text.rpartition(rest)[2].lstrip().partition("\n")[0] if rest in text else None
    elif name == "json" and rest:
        return lambda text, _: json_field(text, rest.split("."))
    elif name == "regex" and rest:
        return _regex(rest)
    known = "whole, first_line, last_number, letter, after:MARKER, json:FIELD, regex:PATTERN"
    raise ValueError(f"unknown extract rule {rule!r}; known: {known}")


def _regex(pattern: str) -> Rule:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"extract rule regex:{pattern} is not a regular expression: {error}") from error

    def rule(text: str, _: int) -> str | None:
        match = compiled.search(text)
        if match is None:
            return None
        found: str | None = match[1] if compiled.groups else match[0]
        return found

    return rule
