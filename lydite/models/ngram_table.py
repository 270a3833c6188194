"""The numbers of an n-gram model, and how a whole batch of texts is looked up in them at once.

An n-gram is found through the n-gram without its last word: those of one length stand sorted by (number of that
shorter n-gram, last word), so the n-gram that ends at a position is the one found for the position before, one word
longer. Looking up all positions of all texts takes one look into a hash table for each length, in numpy, whatever their
number.

Contract: `log p(w | h)` is the n-gram's own number where it is in the table, else that of the shorter context plus the
backoff weight of `h` (0 where `h` is not in the table, or `missing`). Natural logarithms, float32 as stored and float64
as answered. A context shorter than the model's order (the start of a text) is used as it is.

V: vocabulary; M: n-grams of one length; T: positions of a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Level:
    """All n-grams of one length, sorted by (context, last word)."""

    words: npt.NDArray[np.int32]
    """[M] last words; of single words: 0 to V - 1."""
    offsets: Ints
    """[contexts + 1] where the n-grams of each context, an n-gram of the level below, begin; of single words: [0, V]."""
    logprobs: npt.NDArray[np.float32]
    """[M]; minus infinity for what is never predicted (the token that begins a text)."""
    backoffs: npt.NDArray[np.float32]
    """[M] of each n-gram as a context; empty on the highest level."""

    def __len__(self) -> int:
        return len(self.words)

    @property
    def parents(self) -> Ints:
        """[M] the context of each n-gram, by its number."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


@dataclass(frozen=True)
class Scores:
    """One number for each scored position, in order."""

    logprobs: Floats
    greedy: npt.NDArray[np.bool_]
    """Whether each is surely the most likely word of its context."""
    undecided: npt.NDArray[np.bool_]
    """Where only the whole distribution could tell that."""


class NgramTable:
    """The levels of one model, from single words up; `missing` is the backoff weight of contexts that are not there."""

    def __init__(self, levels: Sequence[Level], *, missing: float = 0.0) -> None:
        self.levels = tuple(levels)
        self.missing = missing
        assert np.array_equal(levels[0].words, np.arange(len(levels[0]))), "the first level is the vocabulary"
        size = self.vocab_size
        self._indexes = [KeyIndex(level.parents * size + level.words) for level in levels[1:]]
        # The most likely word that each context holds itself: together with the backoff weight it bounds all words.
        self._best = [_segment_max(level.logprobs, level.offsets) for level in levels]

    @property
    def order(self) -> int:
        """The longest n-gram."""
        return len(self.levels)

    @property
    def vocab_size(self) -> int:
        """V, tokens that are never predicted included."""
        return len(self.levels[0])

    @property
    def num_ngrams(self) -> tuple[int, ...]:
        """Of each length, from 1 up."""
        return tuple(len(level) for level in self.levels)

    # ----------------------------------------------------------------------------------------- lookup

    def walk(self, ids: Ints, depths: Ints) -> list[Ints]:
        """For each length the number of the n-gram that ends at each position, -1 where it is not in the table.

        ids [T]: texts one after the other; depths [T]: how many words of its own text stand before each position.
        """
        found = [ids]
        for n, index in enumerate(self._indexes, start=2):
            spots = np.flatnonzero((depths[1:] >= n - 1) & (found[-1][:-1] >= 0)) + 1
            here = np.full(len(ids), -1, dtype=np.int64)
            here[spots] = index.find(found[-1][spots - 1] * self.vocab_size + ids[spots])
            found.append(here)
        return found

    def score(self, texts: Sequence[npt.NDArray[np.integer]], firsts: Sequence[int]) -> Scores:
        """Scores of the words from `firsts` on of each text, each given those before it; texts in order."""
        reach = max(1, self.order - 1)
        begins = [max(0, first - reach) for first in firsts]
        sizes = np.array([len(text) - begin for text, begin in zip(texts, begins, strict=True)], dtype=np.int64)
        starts = np.cumsum(sizes) - sizes
        ids = np.concatenate([text[begin:] for text, begin in zip(texts, begins, strict=True)]).astype(np.int64)
        depths = np.arange(len(ids)) - np.repeat(starts, sizes)
        skip = np.array(firsts, dtype=np.int64) - np.array(begins, dtype=np.int64)
        spots = np.flatnonzero(depths >= np.repeat(skip, sizes))
        assert depths[spots].all(), "a scored word has at least one word before it"
        return self._score(ids, depths, spots)

    def _score(self, ids: Ints, depths: Ints, spots: Ints) -> Scores:
        """Scores of the positions `spots`."""
        found = self.walk(ids, depths)
        first = self.levels[0]
        value = first.logprobs[ids[spots]].astype(np.float64)
        bound = np.full(len(spots), float(self._best[0][0]))  # no word is more likely than this
        least = bound.copy()  # and one is as likely as this
        for n in range(2, self.order + 1):
            level, below = self.levels[n - 1], self.levels[n - 2]
            if self.missing:
                there = depths[spots] >= n - 1
                value[there] += self.missing
                bound[there] += self.missing
                least[there] += self.missing
            context = found[n - 2][spots - 1]
            context[depths[spots] < n - 1] = -1
            rows = np.flatnonzero(context >= 0)
            context = context[rows]
            weight = below.backoffs[context] - self.missing
            own = found[n - 1][spots[rows]]
            value[rows] = np.where(own >= 0, level.logprobs[own], value[rows] + weight)
            best = self._best[n - 1][context]
            bound[rows] = np.maximum(bound[rows] + weight, best)
            least[rows] = np.where(np.isfinite(best), best, least[rows] + weight)
        slack = 1e-6
        greedy = value >= bound - slack
        return Scores(value, greedy, ~greedy & (value >= least - slack))

    # ----------------------------------------------------------------------------------- distribution

    def distribution(self, context: Sequence[int]) -> Floats:
        """[V] log p(w | context) of every word w; only the last words of the context that the model can see count."""
        reach = self.order - 1
        seen = list(context)[max(0, len(context) - reach) :] if reach else []
        values = self.levels[0].logprobs.astype(np.float64)
        for size in range(1, len(seen) + 1):
            at = self.locate(seen[len(seen) - size :])
            if at < 0:
                values += self.missing
                continue
            level = self.levels[size]
            values += float(self.levels[size - 1].backoffs[at])
            children = slice(int(level.offsets[at]), int(level.offsets[at + 1]))
            values[level.words[children]] = level.logprobs[children]
        return values

    def is_greedy(self, text: Sequence[int] | npt.NDArray[np.integer], position: int) -> bool:
        """Whether the word at `position` is as likely as any other there, by the whole distribution."""
        before = [int(token) for token in text[max(0, position - self.order + 1) : position]]
        values = self.distribution(before)
        return bool(values[int(text[position])] >= values.max() - 1e-9)

    def locate(self, ngram: Sequence[int]) -> int:
        """The number of an n-gram on its level, -1 where it is not in the table."""
        at = int(ngram[0])
        for level, word in zip(self.levels[1:], ngram[1:], strict=False):
            start, end = int(level.offsets[at]), int(level.offsets[at + 1])
            near = start + int(np.searchsorted(level.words[start:end], word))
            if near == end or level.words[near] != word:
                return -1
            at = near
        return at


class KeyIndex:
    """Finds whole batches among sorted keys [M]: twice as fast as a binary search where neither fits the caches.

    Keys are laid out by buckets, about one a bucket, the bucket being the high bits of a product (Knuth's multiplicative
    hashing, The Art of Computer Programming, vol. 3, 6.4); it is built when something is first looked for.
    """

    def __init__(self, keys: Ints) -> None:
        self._sorted = keys
        bits = max(1, len(keys).bit_length())
        self._shift = np.uint64(64 - bits)
        self._buckets: tuple[Ints, npt.NDArray[np.int32], npt.NDArray[np.int32]] | None = None

    def find(self, wanted: Ints) -> Ints:
        """Where each of `wanted` [n] stands among the keys; -1 where it does not."""
        keys, places, starts = self._build() if self._buckets is None else self._buckets
        found = np.full(len(wanted), -1, dtype=np.int64)
        bucket = self._bucket(wanted)
        at, end = starts[bucket], starts[bucket + 1]
        left = np.flatnonzero(at < end)
        while len(left):
            here = at[left]
            hit = keys[here] == wanted[left]
            found[left[hit]] = places[here[hit]]
            left, here = left[~hit], here[~hit] + 1
            at[left] = here
            left = left[here < end[left]]
        return found

    def _bucket(self, keys: Ints) -> Ints:
        return ((keys.view(np.uint64) * _GOLDEN) >> self._shift).view(np.int64)

    def _build(self) -> tuple[Ints, npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Keys bucket by bucket, their places among the sorted ones, and where each bucket begins."""
        bucket = self._bucket(self._sorted)
        order = np.argsort(bucket)
        starts = np.zeros((1 << (64 - int(self._shift))) + 1, dtype=np.int32)
        np.cumsum(np.bincount(bucket, minlength=len(starts) - 1), out=starts[1:])
        self._buckets = (self._sorted[order], order.astype(np.int32), starts)
        self._sorted = np.empty(0, dtype=np.int64)  # a slice would hold the whole array
        return self._buckets


def _segment_max(values: npt.NDArray[np.float32], offsets: Ints) -> npt.NDArray[np.float32]:
    """[contexts] the greatest value of each segment; minus infinity for empty ones."""
    out = np.full(len(offsets) - 1, -np.inf, dtype=np.float32)
    full = np.flatnonzero(np.diff(offsets))
    if len(full):
        out[full] = np.maximum.reduceat(values, offsets[full])
    return out
