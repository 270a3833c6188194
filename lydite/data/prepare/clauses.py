"""Words of many characters that hardly ever repeat, such as the clauses of Chinese, by `bpe`: taken apart and put together.

A merge over the border of two characters makes a token that holds both. So no merge ever crosses a border whose characters
no token holds side by side: what stands between two such borders is encoded by itself, and begins with its characters put
together already. Where tokens hold parts of characters across a border (`\\xe5\\xaf\\x82\\xe5`), what stands around a border
that one of them could cross begins with its bytes.
"""

import functools
import itertools
import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lydite.data.prepare.bpe import LETTERS, Ids, Merges
from lydite.data.prepare.cutting import widths
from lydite.data.prepare.tables import Table

_BYTES = {letter: byte for byte, letter in enumerate(LETTERS)}
_LONGEST = 100
"""Symbols of a part that is encoded here: a part takes a round for each of its merges."""


class Clauses:
    """`encode` of texts whose characters have 16 bits."""

    def __init__(self, merges: Merges) -> None:
        self._merges = merges
        pairs = set[int]()
        self._ends, self._begins = dict[bytes, int](), dict[bytes, int]()
        for token in merges.made:
            raw = bytes(map(_BYTES.__getitem__, token))
            try:
                text = raw.decode()
            except UnicodeDecodeError:
                self._tear(raw)
            else:
                pairs.update([ord(one) << 16 | ord(other) for one, other in itertools.pairwise(text)])
        self._pairs = Table(1, max(1, len(pairs)))
        self._pairs.add([np.array(sorted(pairs), np.uint64)])
        self._end = np.zeros(1 << 16, np.uint64)
        self._begin = np.zeros(1 << 16, np.uint64)
        """Bits of which a character's end and another's beginning share one where a token may tear them."""
        self._seen = np.zeros(1 << 16, bool)
        self._count = np.zeros(1 << 16, np.int64)
        self._ids = np.zeros((1 << 16, 3), np.int32)

    def _tear(self, token: bytes) -> None:
        """Notes the borders within a token that holds parts of characters. With many, several ends share a bit, which at worst
        begins with bytes where characters would do."""
        places = [place for place in range(1, len(token)) if token[place] & 0xC0 != 0x80]
        for start, place, end in zip([0, *places], places, [*places[1:], len(token)], strict=False):
            bit = self._ends.setdefault(token[start:place], 1 << len(self._ends) % 64)
            begin = token[place:end]
            self._begins[begin] = self._begins.get(begin, 0) | bit

    def encode(
        self, codes: NDArray[Any], starts: NDArray[np.bool_]
    ) -> tuple[Ids, NDArray[np.int64], NDArray[np.int64]]:
        """Characters [characters], and whether a word starts at each, to ids [tokens], how many tokens each character began
        [characters], and the first characters of parts that are too long and were left alone.
        """
        self._learn(codes)
        cut = starts.copy()
        inner = np.flatnonzero(~starts)
        left, right = codes[inner - 1], codes[inner]
        keys = left.astype(np.uint64) << np.uint64(16) | right.astype(np.uint64)
        torn = self._end[left] & self._begin[right] > 0
        cut[inner[(self._pairs.find([keys]) == 0) & ~torn]] = True
        symbols, counts = self._symbols(codes, cut, inner[torn])
        begins = np.cumsum(counts) - counts
        parts = begins[cut]
        lengths = np.diff(np.r_[parts, len(symbols)])
        long = np.flatnonzero(lengths > _LONGEST)
        if len(long):
            alone = [parts[n] + np.arange(lengths[n]) for n in long.tolist()]
            joined = self._merges.join(symbols, np.union1d(parts, np.concatenate(alone)))
        else:
            joined = self._merges.join(symbols, parts)
        kept = joined >= 0
        return joined[kept], np.add.reduceat(kept, begins, dtype=np.int64), np.flatnonzero(cut)[long]

    def _symbols(
        self, codes: NDArray[Any], cut: NDArray[np.bool_], torn: NDArray[np.int64]
    ) -> tuple[Ids, NDArray[np.int64]]:
        """What the merges begin with, and how many symbols each character has. `torn`: borders that a token may tear."""
        counts = self._count[codes]
        if not len(torn) and counts.max() == 1:
            return self._ids[codes, 0].astype(np.int64), counts
        parts = np.cumsum(cut)
        is_torn = np.zeros(int(parts[-1]) + 1, bool)
        is_torn[parts[torn]] = True
        bytewise = is_torn[parts]
        counts = np.where(bytewise, widths(codes), counts)
        owners = np.repeat(np.arange(len(codes)), counts)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        symbols = self._ids[codes[owners], within].astype(np.int64)
        bare = np.flatnonzero(bytewise[owners])
        symbols[bare] = self._merges.byte_ids[_byte(codes[owners[bare]], within[bare])]
        return symbols, counts

    def _learn(self, codes: NDArray[Any]) -> None:
        """The ids of characters that are seen for the first time, each by itself."""
        new = np.unique(codes[~self._seen[codes]])
        if not len(new):
            return
        texts = [chr(code).encode() for code in new.tolist()]
        symbols = self._merges.byte_ids[np.frombuffer(b"".join(texts), np.uint8)]
        lengths = np.array([len(text) for text in texts])
        starts = np.cumsum(lengths) - lengths
        joined = self._merges.join(symbols, starts)
        kept = joined >= 0
        self._count[new] = counts = np.add.reduceat(kept, starts, dtype=np.int64)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        self._ids[np.repeat(new, counts), within] = joined[kept]
        self._end[new] = [self._bits(self._ends, [text[-size:] for size in (1, 2, 3)]) for text in texts]
        self._begin[new] = [self._bits(self._begins, [text[:size] for size in (1, 2, 3)]) for text in texts]
        self._seen[new] = True

    @staticmethod
    def _bits(table: dict[bytes, int], parts: list[bytes]) -> int:
        return functools.reduce(operator.or_, [table.get(part, 0) for part in parts])


def _byte(codes: NDArray[Any], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """Byte `place` of the UTF-8 of each character."""
    codes = codes.astype(np.int64)
    width = widths(codes)
    first = np.where(width == 1, codes, np.where(width == 2, 0xC0 | codes >> 6, 0xE0 | codes >> 12))
    later = 0x80 | (codes >> 6 * np.maximum(width - 1 - place, 0)) & 0x3F
    return np.where(place == 0, first, later)
