"""Metrics of generated text against reference texts: exact match and token F1.

Exact match and F1 take the best of several references. Normalisation is part of the metric:

    none    white space at either end is dropped
    number  numbers are compared as numbers (1,250.0 = 1250); anything else as text
    squad   SQuAD 1.1: lower case, no ASCII punctuation, no English articles, single spaces (Rajpurkar et al. 2016,
            official evaluation script v1.1). In Chinese and Japanese all Unicode punctuation goes, and every
            ideograph and kana is a token of its own, since there are no spaces to split at (as in MLQA, Lewis et al. 2020)
    mlqa    MLQA, official evaluation script v1: lower case, no Unicode punctuation, no articles of the language (en, es,
            de, vi, ar), Chinese characters one by one
    trivia  TriviaQA, official evaluation script: as squad, but punctuation and _ become spaces, and ‘ ’ ´ ` count as such
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from lydite.metrics.extract import canonical_number
from lydite.types import Metric

EXACT_MATCH = Metric(name="exact_match", unit="proportion")
F1 = Metric(name="f1", bounds=(0.0, 1.0))
"""Token F1 against the best reference, mean over samples, from 0 to 1."""

Normalization = Literal["none", "number", "squad", "mlqa", "trivia"]
NORMALIZATIONS: tuple[Normalization, ...] = ("none", "number", "squad", "mlqa", "trivia")
UNSPACED = ("zh", "ja")
"""Languages written without spaces, in which characters stand in for words."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_UNSPACED_TOKEN = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|[^\s\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)


def squad_tokens(text: str, language: str = "en") -> list[str]:
    """Tokens after SQuAD's normalisation, or its counterpart for languages without spaces."""
    text = text.lower()
    if language in UNSPACED:
        return _UNSPACED_TOKEN.findall("".join(" " if _is_punctuation(char) else char for char in text))
    return _ARTICLES.sub(" ", text.translate(_NO_ASCII_PUNCTUATION)).split()


_MLQA_ARTICLES = {
    "en": (_ARTICLES, " "),
    "es": (re.compile(r"\b(un|una|unos|unas|el|la|los|las)\b"), " "),
    "de": (re.compile(r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"), " "),
    "vi": (re.compile(r"\b(của|là|cái|chiếc|những)\b"), " "),
    # The article is a prefix. Cutting it also cuts words that only begin like it, here as in the script.
    "ar": (re.compile(r"(?:^|\s)ال"), " "),
}
_MLQA_CHINESE = re.compile(r"([\u4e00-\u9fa5])")
_TRIVIA_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "‘’´`", " "))


def mlqa_tokens(text: str, language: str) -> list[str]:
    """Tokens after the normalisation of MLQA's evaluation script, whose languages are ar, de, en, es, hi, vi, zh."""
    text = "".join(char for char in text.lower() if not _is_punctuation(char))
    if language in _MLQA_ARTICLES:
        articles, instead = _MLQA_ARTICLES[language]
        text = articles.sub(instead, text)
    return (_MLQA_CHINESE.sub(r" \1 ", text) if language == "zh" else text).split()


def trivia_tokens(text: str) -> list[str]:
    """Tokens after the normalisation of TriviaQA's evaluation script."""
    return _ARTICLES.sub(" ", text.replace("_", " ").lower().translate(_TRIVIA_PUNCTUATION)).split()


def tokens(text: str, how: Normalization, language: str = "en") -> list[str]:
    """Tokens of a text after a normalisation; with `none` and `number` the pieces between white space."""
    if how == "squad":
        return squad_tokens(text, language)
    if how == "mlqa":
        return mlqa_tokens(text, language)
    return trivia_tokens(text) if how == "trivia" else text.split()


def _is_punctuation(char: str) -> bool:
    return char in string.punctuation or unicodedata.category(char).startswith("P")


def normalize(text: str, how: Normalization, language: str = "en") -> str:
    """The form in which texts are compared by exact match."""
    if how == "squad":
        return ("" if language in UNSPACED else " ").join(squad_tokens(text, language))
    if how in ("mlqa", "trivia"):
        return " ".join(tokens(text, how, language))
    if how == "number":
        return canonical_number(text) or text.strip()
    return text.strip()


def exact_match(answer: str, targets: Sequence[str], how: Normalization = "none", language: str = "en") -> float:
    """1 where the answer equals any target after normalisation, else 0."""
    found = normalize(answer, how, language)
    return float(any(found == normalize(target, how, language) for target in targets))


def token_f1(answer: str, targets: Sequence[str], language: str = "en", how: Normalization = "squad") -> float:
    """Largest F1 between the bags of tokens of the answer and of a target; 0 where they share none."""
    found = tokens(answer, how, language)
    return max(_f1(found, tokens(target, how, language)) for target in targets)


def token_f1_or_nothing(answer: str, targets: Sequence[str]) -> float:
    """token_f1 as SQuAD 2.0 and CoQA have it: where either side has no tokens, 1 if neither has any, else 0."""
    found = squad_tokens(answer)
    wanted = [squad_tokens(target) for target in targets]
    return max(_f1(found, one) if found and one else float(found == one) for one in wanted)


def _f1(answer: list[str], target: list[str]) -> float:
    common = sum((Counter(answer) & Counter(target)).values())
    if not common:
        return 0.0
    precision, recall = common / len(answer), common / len(target)
    return 2 * precision * recall / (precision + recall)


Judge = Callable[[str, Sequence[str]], tuple[float, tuple[float, ...]]]
"""(answer, targets) to (value, statistics); no statistics for means of values."""
