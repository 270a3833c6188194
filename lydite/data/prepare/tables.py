"""Keys of 64 or 128 bits to numbers, many at one time: a hash table whose every step is an operation of numpy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
Numbers = NDArray[np.int64]

_FACTORS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_LAST = np.uint64(0xD6E8FEB86659FD93)


class Table:
    """Open addressing with linear probing. The keys are kept whole, so that equal hashes never make keys equal.

    `width`: numbers of a key, 1 or 2. `most`: keys that it holds; the slots are at least four times as many.
    """

    def __init__(self, width: int, most: int) -> None:
        bits = max(4, (4 * most - 1).bit_length())
        self.most, self._shift, self._mask = most, np.uint64(64 - bits), (1 << bits) - 1
        self._slots = np.zeros(1 << bits, np.int32)
        self._keys = [np.zeros(most + 1, np.uint64) for _ in range(width)]
        self.size = 0

    def clear(self) -> None:
        self._slots[:] = 0
        self.size = 0

    def find(self, keys: Sequence[Keys]) -> Numbers:
        """Which key of the table each is, counted from 1; 0 for one that it does not hold."""
        places = self._places(keys)
        found: Numbers = self._slots[places].astype(np.int64)
        left = np.flatnonzero((found > 0) & self._differ(found, keys))
        while len(left):  # another key stands there: look one slot further
            places[left] = (places[left] + 1) & self._mask
            found[left] = self._slots[places[left]]
            left = left[(found[left] > 0) & self._differ(found[left], [key[left] for key in keys])]
        return found

    def add(self, keys: Sequence[Keys]) -> Numbers:
        """Numbers of keys that are new and no two of them alike; there must be room."""
        count = len(keys[0])
        assert self.size + count <= self.most, "there is room"
        numbers = np.arange(self.size + 1, self.size + 1 + count)
        for kept, key in zip(self._keys, keys, strict=True):
            kept[numbers] = key
        self.size += count
        places, left = self._places(keys), np.arange(count)
        while len(left):
            empty = self._slots[places[left]] == 0
            self._slots[places[left[empty]]] = numbers[left[empty]]  # of several that want a slot one gets it
            left = left[self._slots[places[left]] != numbers[left]]
            places[left] = (places[left] + 1) & self._mask
        return numbers

    def _differ(self, found: Numbers, keys: Sequence[Keys]) -> NDArray[np.bool_]:
        differ = self._keys[0][found] != keys[0]
        for kept, key in zip(self._keys[1:], keys[1:], strict=True):
            differ |= kept[found] != key
        return np.asarray(differ)

    def _places(self, keys: Sequence[Keys]) -> NDArray[Any]:
        mixed = keys[0] * _FACTORS[0]
        for key, factor in zip(keys[1:], _FACTORS[1:], strict=False):
            mixed ^= key * factor
        mixed ^= mixed >> np.uint64(32)
        mixed *= _LAST
        return (mixed >> self._shift).astype(np.int64)
