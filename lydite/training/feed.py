"""From an objective's examples to the rows of each step: which ones, in which order, whose.

Contract: stateless but for a `Place`. The same objective and the same place give the same step, in any process and after
any interruption. A step that reaches the end of an epoch takes its last rows from the next one, so that all steps are
full. Processes take contiguous shares of a step's rows, and each cuts its own into contiguous micro-batches.
"""

from collections.abc import Sequence
from typing import TypeVar

import msgspec
import numpy as np

from lydite.training.batch import Example
from lydite.training.objectives import Objective

T = TypeVar("T")


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a run has read."""

    epoch: int = 0
    index: int = 0
    """Example of the epoch with which the step, or the window that it is cut from, begins."""
    batch: int = 0
    """Step of the window."""


class Feed:
    """Hands out the rows of step after step; `place` is where the next one begins."""

    def __init__(
        self, objective: Objective, *, batch_size: int, batch_tokens: int = 0, window: int = 0, seed: int = 0
    ) -> None:
        self.objective = objective
        self.batch_size, self.batch_tokens, self.window, self.seed = batch_size, batch_tokens, window, seed
        self.place = Place()
        self._cut: tuple[tuple[int, int], list[list[Example]], Place] | None = None

    def next(self, rank: int = 0, size: int = 1) -> tuple[list[Example], int]:
        """This process's rows of the next step, and how many rows the step has over all processes."""
        if not self.window:
            keys, self.place = self._keys(self.place, self.batch_size)
            return [self.objective.example(*key) for key in share(keys, rank, size)], len(keys)
        batches, after = self._window(size)
        rows = batches[self.place.batch]
        is_last = self.place.batch + 1 == len(batches)
        self.place = after if is_last else msgspec.structs.replace(self.place, batch=self.place.batch + 1)
        return share(rows, rank, size), len(rows)

    def _keys(self, place: Place, count: int) -> tuple[list[tuple[int, int]], Place]:
        """(epoch, index) of the next `count` examples, and the place behind them."""
        epoch, index = place.epoch, place.index
        keys: list[tuple[int, int]] = []
        while len(keys) < count:
            end = min(self.objective.num_examples(epoch), index + count - len(keys))
            keys += [(epoch, i) for i in range(index, end)]
            index = end
            if index == self.objective.num_examples(epoch):
                epoch, index = epoch + 1, 0
        return keys, Place(epoch, index)

    def _window(self, size: int) -> tuple[list[list[Example]], Place]:
        """The window's steps: its examples sorted by length, cut, the cuts shuffled."""
        start = self.place.epoch, self.place.index
        if self._cut is None or self._cut[0] != start:
            keys, after = self._keys(self.place, self.window)
            rows = sorted((self.objective.example(*key) for key in keys), key=lambda row: row.length)
            batches = self._by_tokens(rows, size) if self.batch_tokens else self._by_rows(rows, size)
            order = np.random.default_rng((self.seed, *start)).permutation(len(batches))
            self._cut = start, [batches[i] for i in order], after
        return self._cut[1], self._cut[2]

    def _by_rows(self, rows: list[Example], size: int) -> list[list[Example]]:
        """Cuts of `batch_size` rows; what is left over has a row for each process, or goes to the cut before it."""
        return _no_small_end([rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)], size)

    def _by_tokens(self, rows: list[Example], size: int) -> list[list[Example]]:
        """Cuts of at most `batch_tokens` padded positions, but of at least a row for each process."""
        batches: list[list[Example]] = [[]]
        for row in rows:  # each is the longest so far
            if len(batches[-1]) >= size and (len(batches[-1]) + 1) * row.length > self.batch_tokens:
                batches.append([])
            batches[-1].append(row)
        return _no_small_end(batches, size)


def _no_small_end(batches: list[list[Example]], size: int) -> list[list[Example]]:
    if len(batches) > 1 and len(batches[-1]) < size:
        batches[-2] += batches.pop()
    return batches


def share(rows: Sequence[T], part: int, parts: int) -> list[T]:
    """Part `part` of `parts` contiguous, nearly equal parts; the same rows always go to the same part."""
    return list(rows[len(rows) * part // parts : len(rows) * (part + 1) // parts])


def micro_batches(rows: Sequence[T], parts: int, least: int) -> list[list[T]]:
    """`parts` contiguous, nearly equal parts; fewer where the process with the fewest rows, `least` of them, has fewer: all
    processes cut theirs into as many, since their backward passes wait for one another."""
    parts = min(parts, least)
    return [share(rows, part, parts) for part in range(parts)]
