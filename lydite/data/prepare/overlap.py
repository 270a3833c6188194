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
        by_length: dict[int, _Texts] = {}
        for task, item, text in texts:
            words = units(text)
            self.num_texts[task] = self.num_texts.get(task, 0) + 1
            if len(words) < shortest:
                self.num_too_short[task] = self.num_too_short.get(task, 0) + 1
                continue
            by_length.setdefault(min(len(words), ngram), _Texts()).add(words, len(self.items))
            self.items.append((task, item))
        self._tables = {length: some.table(length) for length, some in sorted(by_length.items(), reverse=True)}

    def __bool__(self) -> bool:
        return bool(self._tables)

    def find(self, words: list[str], values: Hashes) -> Hit | None:
        """The first overlap of a document with any item, the longest n-grams first; None where there is none."""
        for length, table in self._tables.items():
            mine = ngram_hashes(values, length)
            found = table.find(mine)
            if len(found):
                first = int(found[0])
                task, item = self.items[table.owner(mine[first])]
                return Hit(task, item, " ".join(words[first : first + length]), len(found))
        return None


class _Texts:
    """Texts of which the n-grams of one length are looked for, put together: numpy is slow on short ones alone."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.sizes: list[int] = []
        self.owners: list[int] = []

    def add(self, words: list[str], owner: int) -> None:
        self.words += words
        self.sizes.append(len(words))
        self.owners.append(owner)

    def table(self, length: int) -> "_Table":
        """The n-grams of all texts, none from one into the next."""
        sizes = np.array(self.sizes, np.int64)
        ends = np.repeat(np.cumsum(sizes), sizes)
        inside = np.flatnonzero(np.arange(len(ends)) + length <= ends)
        hashes = ngram_hashes(numbers(self.words), length)
        return _Table(hashes[inside], np.repeat(np.array(self.owners, np.int64), sizes)[inside])


class _Table:
    """Hashes, sorted, and the first item that each comes from."""

    def __init__(self, hashes: Hashes, owners: NDArray[np.int64]) -> None:
        self._hashes, first = np.unique(hashes, return_index=True)
        self._owners = owners[first]
        # A document has hardly any of them: a bit map of a sixteenth full says so without a search in the whole table.
        bits = min(26, max(8, len(self._hashes).bit_length() + 4))
        self._shift = np.uint64(64 - bits)
        self._some = np.zeros(1 << bits, np.bool_)
        self._some[self._hashes >> self._shift] = True

    def find(self, hashes: Hashes) -> NDArray[np.int64]:
        """Which of `hashes` [n] stand in the table."""
        maybe = np.flatnonzero(self._some[hashes >> self._shift])
        places = np.searchsorted(self._hashes, hashes[maybe])
        places[places == len(self._hashes)] = 0
        found: NDArray[np.int64] = maybe[self._hashes[places] == hashes[maybe]]
        return found

    def owner(self, wanted: np.uint64) -> int:
        """The item of a hash that the table has."""
        return int(self._owners[np.searchsorted(self._hashes, wanted)])
