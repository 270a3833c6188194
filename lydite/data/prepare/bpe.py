"""Byte-pair encoding of many words at one time, in numpy: the ids that `tokenizers` gives.

BPE (Sennrich, Haddow and Birch 2016) joins, in every word, the neighbours whose merge was learned first, the leftmost of
equals, until no neighbours have a merge. Here each round does one such step in every word that is not finished.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lydite.data.prepare.tables import Table

Ids = NDArray[np.int64]

_NONE = 1 << 30
"""The rank of neighbours that have no merge."""


def _letters() -> str:
    """GPT-2's letter for every byte: printable ones stand for themselves, the others follow from U+0100."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return "".join(chr(byte if byte in plain else next(others)) for byte in range(256))


LETTERS = _letters()


class Merges:
    """The merges of a byte-level BPE. `pairs`: the two sides in GPT-2's letters, best first; `vocab`: token to id."""

    def __init__(self, pairs: Sequence[Sequence[str]], vocab: Mapping[str, int]) -> None:
        self.byte_ids = np.array([vocab[letter] for letter in LETTERS], np.int64)
        self.made = [left + right for left, right in pairs]
        """What the merges make."""
        ids = [list(map(vocab.__getitem__, side)) for side in (*zip(*pairs, strict=True), self.made)]
        left, right, made = np.array(ids, np.int64).reshape(3, -1)
        keys = left.astype(np.uint64) << np.uint64(32) | right.astype(np.uint64)
        keys, last = np.unique(keys[::-1], return_index=True)  # of equal pairs the last one counts
        rank = len(pairs) - 1 - last
        self._table = Table(1, len(keys))
        self._table.add([keys])
        self._rank = np.r_[_NONE, rank]
        self._made = made

    def _ranks(self, left: Ids, right: Ids) -> Ids:
        keys = left.astype(np.uint64) << np.uint64(32) | right.astype(np.uint64)
        return np.asarray(self._rank[self._table.find([keys])])

    def join(self, symbols: Ids, starts: Ids) -> Ids:
        """Symbols [symbols] of parts that begin at `starts` [parts] to ids, with -1 for those that went into the one before."""
        out = symbols.copy()
        if len(symbols) < 2:
            return out
        inner = np.ones(len(symbols), bool)
        inner[starts[1:] - 1] = False
        inner[-1] = False
        places = np.flatnonzero(inner)
        ranks = np.full(len(symbols), _NONE, np.int64)
        ranks[places] = self._ranks(symbols[places], symbols[places + 1])
        lengths = np.diff(np.r_[starts, len(symbols)])
        symbols, at = symbols.copy(), np.arange(len(symbols))
        while True:
            best = np.minimum.reduceat(ranks << 32 | np.arange(len(ranks)), starts)
            alive = best < _NONE << 32
            if not alive.any():
                return out
            first = best[alive] & 0xFFFFFFFF
            made = self._made[ranks[first]]
            symbols[first] = out[at[first]] = made
            out[at[first + 1]] = -1
            keep = np.repeat(alive, lengths)
            keep[first + 1] = False
            moved = np.cumsum(keep)[first] - 1
            symbols, ranks, at = symbols[keep], ranks[keep], at[keep]
            lengths = lengths[alive] - 1
            starts = np.cumsum(lengths) - lengths
            ranks[moved] = _NONE
            ends = starts + lengths - 1
            right = moved[moved < ends]
            ranks[right] = self._ranks(symbols[right], symbols[right + 1])
            left = moved[moved > starts] - 1
            ranks[left] = self._ranks(symbols[left], symbols[left + 1])


def merges_of(model: Mapping[str, Any]) -> Merges | None:
    """The merges in the JSON of a BPE model; None where it does more than merge bytes."""
    if any(model.get(key) for key in ("ignore_merges", "continuing_subword_prefix", "end_of_word_suffix", "dropout")):
        return None
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    if not pairs or not all(len(pair) == 2 for pair in pairs) or not model["vocab"].keys() >= set(LETTERS):
        return None
    if set("".join(map("".join, pairs))) - set(LETTERS):
        return None
    return Merges(pairs, model["vocab"])
