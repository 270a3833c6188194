"""Words of a text, by language, for metrics that count words: ROUGE and the statistics of summaries.

    ascii          English: lower case, runs of a-z and 0-9, as in Lin's ROUGE-1.5.5 and rouge-score
    ascii+porter   the same, words of more than three letters stemmed
    unicode        other languages: NFKC, lower case, runs of letters, marks and digits; in scripts written without
                   spaces (Han, kana, Thai, Lao, Khmer, Myanmar) each character with its marks is a word
    unicode-ar     Arabic, Persian, Urdu: unicode after vowel marks and tatweel are dropped

Contract: a line break ends a word, so the words of a text are the words of its lines. The name of the rule belongs in
the signature of every number made with it.
"""

import functools
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import regex

_ASCII = regex.compile(r"[a-z0-9]+")
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_UNICODE = regex.compile(
    rf"[{_UNSPACED}&&\p{{L}}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}ー]--[{_UNSPACED}&&\p{{L}}]]+", regex.V1
)
_ARABIC_MARKS = regex.compile(r"[\u0610-\u061a\u0640\u064b-\u065f\u0670]")
_ARABIC = ("ar", "fa", "ur")


@dataclass(frozen=True)
class Words:
    """A rule that cuts texts into words."""

    name: str
    """As signatures say it."""
    cut: Callable[[str], list[str]]

    def __call__(self, text: str) -> list[str]:
        return self.cut(text)


def words_of(language: str = "en", *, stem: bool = False) -> Words:
    """The rule for a language (ISO 639-1). Raises ValueError where stems are asked for that are not English."""
    if language == "en":
        return Words("ascii+porter", _ascii_stems) if stem else Words("ascii", _ascii)
    if stem:
        raise ValueError(f"the Porter stemmer is for English, not for {language!r}")
    return Words("unicode-ar", _arabic) if language in _ARABIC else Words("unicode", _unicode)


def ngrams(words: Sequence[str], order: int) -> list[tuple[str, ...]]:
    """All runs of `order` words."""
    return list(zip(*(words[start:] for start in range(order)), strict=False))


def _ascii(text: str) -> list[str]:
    found: list[str] = _ASCII.findall(text.lower())
    return found


def _ascii_stems(text: str) -> list[str]:
    return [_stem(word) if len(word) > 3 else word for word in _ascii(text)]


def _unicode(text: str) -> list[str]:
    # NFKC splits the Thai and Lao vowel "am" in two, of which one would pass for another vowel.
    plain = unicodedata.normalize("NFKC", text).replace("\u0e4d\u0e32", "\u0e33").replace("\u0ecd\u0eb2", "\u0eb3")
    found: list[str] = _UNICODE.findall(plain.lower())
    return found


def _arabic(text: str) -> list[str]:
    # Marks go first: NFKC could join some of them to a letter.
    return _unicode(_ARABIC_MARKS.sub("", unicodedata.normalize("NFKD", text)))


@functools.lru_cache(maxsize=1 << 17)
def _stem(word: str) -> str:
    return str(_porter().stem(word))


@functools.cache
def _porter() -> Any:
    # Of Porter's algorithm there are several; this is the one that rouge-score uses.
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()
