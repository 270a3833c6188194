"""Words and their n-grams as numbers: what near-duplicates and overlaps with evaluation items are found by.

A unit is a run of letters or digits in lower case; where a language is written without spaces (Han, Kana), each character
is a unit, so that Chinese n-grams are of characters. Hashes are the same on every machine and in every version.
"""

import re
import zlib

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

HAN = "\u3005\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_UNIT = re.compile(f"[{HAN}]|[^\\W_{HAN}]+")
_HANS = re.compile(f"[{HAN}]+")
_LETTERS = re.compile(r"[^\W\d_]+")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Of the rolling hash: that of n units is that of the first n - 1 times this, plus the last."""
_MOST = 1 << 20
"""Units whose hashes are remembered."""


class _Numbers(dict[str, int]):
    def __missing__(self, unit: str) -> int:
        if len(self) >= _MOST:
            self.clear()
        number = self[unit] = zlib.crc32(unit.encode("utf-8", "surrogatepass"))
        return number


_NUMBERS = _Numbers()


def units(text: str) -> list[str]:
    """Words and, of Chinese and Japanese, characters; in lower case, without punctuation."""
    return _UNIT.findall(text.lower())


def is_han(text: str) -> bool:
    """Whether most letters of the text's beginning are Han or Kana."""
    head = text[:2000]
    return 2 * sum(map(len, _HANS.findall(head))) > sum(map(len, _LETTERS.findall(head)))


def mix(values: Hashes) -> Hashes:
    """The finisher of SplitMix64 (Steele, Lea and Flood 2014): spreads every bit over all of them."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)  # arrays wrap around in silence
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = values ^ (values >> np.uint64(31))
    return mixed


def numbers(words: list[str]) -> Hashes:
    """A number a unit: uint64 [units]."""
    return mix(np.fromiter(map(_NUMBERS.__getitem__, words), np.uint64, len(words)) + np.uint64(1))


def ngram_hashes(values: Hashes, n: int) -> Hashes:
    """Hashes of all n-grams: uint64 [max(0, units - n + 1)]."""
    count = len(values) - n + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    total = values[:count].copy()
    for offset in range(1, n):
        total *= MULTIPLIER
        total += values[offset : offset + count]
    return mix(total)
