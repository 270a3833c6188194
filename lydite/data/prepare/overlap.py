"""Documents that hold parts of evaluation items: long n-grams in common, as in GPT-3 (Brown et al. 2020, appendix C).

An n-gram is of `overlap_ngram` units (words in lower case; each character of Chinese). An item shorter than that is looked
for whole if it has at least `overlap_min` units, and not at all if it has fewer: such texts stand everywhere. Items of
neither kind are counted, so that nobody takes silence for absence.

Contract: texts come in from outside as (task, item, text); this room knows no tasks.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lydite.data.prepare.ngrams import Hashes, ngram_hashes, numbers, units


class BannedText(NamedTuple):
    """A text that the corpus must not contain."""

    task: str
    item: str
    text: str


class Hit(NamedTuple):
    """What a document shares with an item."""

    task: str
    item: str
    shared: str
    """The first n-gram in common."""
    num_shared: int


class Overlap:
    """An index of banned n-grams: sorted hashes, and the item that each comes from."""

    def __init__(self, texts: Iterable[BannedText], ngram: int, shortest: int) -> None:
        self.ngram = ngram
        self.num_texts: dict[str, int] = {}
        self.num_too_short: dict[str, int] = {}
        self.items: list[tuple[str, str]] = []
        by_length: dict[int, list[tuple[Hashes, int]]] = {}
        for task, item, text in texts:
            values = numbers(units(text))
            self.num_texts[task] = self.num_texts.get(task, 0) + 1
            if len(values) < shortest:
                self.num_too_short[task] = self.num_too_short.get(task, 0) + 1
                continue
            length = min(len(values), ngram)
            self.items.append((task, item))
            by_length.setdefault(length, []).append((ngram_hashes(values, length), len(self.items) - 1))
        self._tables = {length: _table(parts) for length, parts in sorted(by_length.items(), reverse=True)}

    def __bool__(self) -> bool:
        return bool(self._tables)

    def find(self, words: list[str], values: Hashes) -> Hit | None:
        """The first overlap of a document with any item, the longest n-grams first; None where there is none."""
        for length, (hashes, owners) in self._tables.items():
            mine = ngram_hashes(values, length)
            places = np.searchsorted(hashes, mine)
            places[places == len(hashes)] = 0
            found = np.flatnonzero(hashes[places] == mine)
            if len(found):
                first = int(found[0])
                task, item = self.items[int(owners[places[first]])]
                return Hit(task, item, " ".join(words[first : first + length]), len(found))
        return None


def _table(parts: list[tuple[Hashes, int]]) -> tuple[Hashes, NDArray[np.int64]]:
    hashes = np.concatenate([part for part, _ in parts])
    owners = np.repeat(np.array([owner for _, owner in parts], np.int64), [len(part) for part, _ in parts])
    unique, first = np.unique(hashes, return_index=True)
    return unique, owners[first]
