"""Prefixes whose keys and values outlive a plan: shots and instructions that the next block of requests begins with too.

Contract: an entry is exact (it is what the network computed for these tokens), is forgotten when the weights or their
kernel change, and all entries together stay below `max_bytes`; the least recently used go first.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lydite.engine.attention import Layers
from lydite.engine.plan import SHARED_TOKENS, Ints, common
from lydite.engine.tokens import Window


class PrefixCache:
    """Token prefixes -> their keys and values, least recently used first."""

    def __init__(self, *, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._entries: dict[bytes, tuple[Ints, Layers]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        """What all entries take."""
        return sum(_size(layers) for _, layers in self._entries.values())

    def clear(self) -> None:
        """Forget everything; needed when weights or kernels change."""
        self._entries.clear()

    def put(self, ids: Ints, layers: Layers) -> None:
        """Keep a prefix if it fits and none continues it; those that it continues are not needed any more."""
        if _size(layers) > self.max_bytes:
            return
        for key, (known, _) in list(self._entries.items()):
            shared = common(known, ids)
            if shared == len(ids):
                return
            if shared == len(known):
                del self._entries[key]
        self._entries[ids.tobytes()] = (ids, layers)
        while self.num_bytes > self.max_bytes:
            del self._entries[next(iter(self._entries))]

    def find(self, windows: Sequence[Window]) -> list[tuple[Ints, Layers]]:
        """What `make_plan` may take as cached for these windows: prefixes in which none of their scored rows stands."""
        found = []
        for key, (ids, layers) in list(self._entries.items()):
            use = _usable(ids, windows)
            if use >= SHARED_TOKENS:
                self._entries[key] = self._entries.pop(key)  # now the most recently used
                found.append((ids[:use], layers))
        return found


def _usable(ids: Ints, windows: Sequence[Window]) -> int:
    """How many tokens of a prefix the windows share without reading a row of it."""
    head = ids[:SHARED_TOKENS]
    longest, most = 0, len(ids)
    for window in windows:
        if len(window.ids) <= SHARED_TOKENS or not np.array_equal(window.ids[:SHARED_TOKENS], head):
            continue
        shared = common(ids, _inputs(window))
        longest = max(longest, shared)
        if shared > window.first - 1:
            most = min(most, window.first - 1)
    return min(longest, most)


def _inputs(window: Window) -> npt.NDArray[np.int32]:
    return window.ids[:-1]


def _size(layers: Layers) -> int:
    return sum(keys.nbytes + values.nbytes for keys, values in layers)
