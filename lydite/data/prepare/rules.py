"""Published rules of quality, in a form that does not throw away languages without spaces.

gopher_quality, gopher_repetition: Rae et al. 2021 (*Scaling Language Models*, appendix A.1.1). c4: Raffel et al. 2020
(*Exploring the Limits of Transfer Learning*, section 2.2), without the list of bad words.

Where a rule counts words, a Chinese or Japanese character counts as one (ngrams.units). What is about words in the Latin
sense (their mean length, the share that holds a letter, English stop words) is not asked of such texts; stop words are asked
for only where the language is known to be English. A rule returns why a document goes, or None.
"""

import re
from collections.abc import Sequence

import numpy as np

from lydite.data.prepare.ngrams import MULTIPLIER, Hashes, is_han, mix
from lydite.data.prepare.sentences import sentence_starts

_STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_BULLETS = ("•", "‣", "▶", "◀", "◦", "■", "□", "▪", "▫", "–", "-", "*", "·", "●")
_ELLIPSES = ("...", "…")
_TERMINAL = tuple(".!?\"'”’。！？；…」』）")
_TOP = ((2, 0.20), (3, 0.18), (4, 0.16))
_REPEATED = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")


def gopher_quality(text: str, words: Sequence[str], language: str) -> str | None:
    """`words`: the units of the text."""
    if not 50 <= len(words) <= 100_000:
        return "words" if len(words) >= 50 else "few words"
    if (text.count("#") + text.count("…") + text.count("...")) / len(words) > 0.1:
        return "symbols"
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if sum(line.startswith(_BULLETS) for line in lines) > 0.9 * len(lines):
        return "bullets"
    if sum(line.endswith(_ELLIPSES) for line in lines) > 0.3 * len(lines):
        return "ellipses"
    if is_han(text):
        return None
    spaced = text.split()
    if not 3 <= sum(map(len, spaced)) / len(spaced) <= 10:
        return "word length"
    if sum(any(map(str.isalpha, word)) for word in spaced) < 0.8 * len(spaced):
        return "letters"
    if language == "en" and len(_STOP_WORDS.intersection(words)) < 2:
        return "stop words"
    return None


def gopher_repetition(text: str, words: Sequence[str], values: Hashes) -> str | None:
    """`values`: the numbers of the units."""
    lines = [line for line in text.split("\n") if line.strip()]
    if _repeated(lines) or _repeated([part for part in text.split("\n\n") if part.strip()]):
        return "lines"
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    total = int(lengths.sum())
    before = np.concatenate([[0], np.cumsum(lengths)])
    limits = dict(_TOP + _REPEATED)
    # What repeats at n units has repeated at n - 1, so each length looks only where the one before found something.
    spots = np.arange(len(values))
    sums = values
    for n in range(2, _REPEATED[-1][0] + 1):
        count = len(values) - n + 1
        if count <= 0:
            return None
        sums = sums[:count] * MULTIPLIER + values[n - 1 :]
        spots = spots[spots < count]
        _, first, which, counts = np.unique(
            mix(sums[spots]), return_index=True, return_inverse=True, return_counts=True
        )
        if not len(counts) or counts.max() == 1:
            return None
        if n <= _TOP[-1][0]:
            best = int(counts.argmax())
            at = spots[first[best]]
            if int(counts[best]) * int(before[at + n] - before[at]) > limits[n] * total:
                return f"top {n}-gram"
        spots = spots[counts[which] > 1]
        if n >= _REPEATED[0][0]:
            covered = np.zeros(len(words) + 1, np.int64)
            covered[spots] += 1  # no spot stands there twice
            covered[spots + n] -= 1
            if int(lengths[np.cumsum(covered[:-1]) > 0].sum()) > limits[n] * total:
                return f"repeated {n}-grams"
    return None


def _repeated(parts: Sequence[str]) -> bool:
    """Whether over 30% of the parts, or 20% of their characters, are in parts that stood there before."""
    seen: set[str] = set()
    number = size = 0
    for part in parts:
        if part in seen:
            number, size = number + 1, size + len(part)
        seen.add(part)
    return number > 0.3 * len(parts) or size > 0.2 * sum(map(len, parts))


def c4(text: str, units_of_line: Sequence[int]) -> tuple[str, str | None]:
    """The text with its good lines only, and why the document goes. `units_of_line`: words of each line."""
    small = text.lower()
    if "lorem ipsum" in small:
        return text, "lorem ipsum"
    if "{" in text:
        return text, "brace"
    kept = [
        _CITATION.sub("", line.strip())
        for line, count in zip(text.split("\n"), units_of_line, strict=True)
        if count >= 5
        and line.strip().endswith(_TERMINAL)
        and "javascript" not in line.lower()
        and not line.strip().endswith(_ELLIPSES[0])
    ]
    text = "\n".join(kept)
    return text, None if text and len(sentence_starts(text)) >= 3 else "sentences"
