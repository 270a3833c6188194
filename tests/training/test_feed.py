"""The feed: every example once an epoch, from any place, whatever the number of processes."""

import numpy as np
import pytest

from lydite.training.batch import Example
from lydite.training.feed import Feed, micro_batches, share


class Rows:
    """An objective whose example is its number, of made-up length."""

    rows = None

    def num_examples(self, epoch):
        return 10

    def example(self, epoch, index):
        length = 1 + (7 * index + 3 * epoch) % 9
        return Example({"number": np.array([epoch, index])}, length)


def numbers(rows):
    return [tuple(row.fields["number"].tolist()) for row in rows]


@pytest.mark.parametrize("options", [{}, {"window": 20}, {"window": 20, "batch_tokens": 24}])
def test_epochs_are_complete(options):
    feed = Feed(Rows(), batch_size=0 if "batch_tokens" in options else 4, **options)
    seen = []
    while len(seen) < 20:
        rows, total = feed.next()
        assert len(rows) == total
        seen += numbers(rows)
    assert sorted(seen) == [(epoch, index) for epoch in (0, 1) for index in range(10)]


@pytest.mark.parametrize("options", [{}, {"window": 12}, {"window": 12, "batch_tokens": 24}])
def test_continues_from_any_place(options):
    size = 0 if "batch_tokens" in options else 4
    whole = Feed(Rows(), batch_size=size, **options)
    places, steps = [], []
    for _ in range(9):
        places.append(whole.place)
        steps.append(numbers(whole.next()[0]))
    for place, step in zip(places, steps, strict=True):
        again = Feed(Rows(), batch_size=size, **options)
        again.place = place
        assert numbers(again.next()[0]) == step


@pytest.mark.parametrize("options", [{}, {"window": 12}])
def test_processes_share_a_step(options):
    whole = Feed(Rows(), batch_size=4, **options)
    parts = [Feed(Rows(), batch_size=4, **options) for _ in range(3)]
    for _ in range(6):
        rows, total = whole.next()
        shares = [part.next(rank, 3) for rank, part in enumerate(parts)]
        assert numbers(rows) == [number for mine, _ in shares for number in numbers(mine)]
        assert {count for _, count in shares} == {total}


@pytest.mark.parametrize("options", [{"batch_size": 4}, {"batch_size": 0, "batch_tokens": 24}])
@pytest.mark.parametrize("window", [9, 10, 13])
def test_each_process_has_a_row_of_every_step(options, window):
    """Also of a window's last one, which is what the others left."""
    parts = [Feed(Rows(), window=window, **options) for _ in range(3)]
    for _ in range(8):
        assert all(part.next(rank, 3)[0] for rank, part in enumerate(parts))


def test_windows_bring_equal_lengths_together():
    feed = Feed(Rows(), batch_size=0, batch_tokens=24, window=20)
    steps = [feed.next()[0] for _ in range(5)]
    assert all(len(rows) * max(row.length for row in rows) <= 24 for rows in steps)


def test_shares_are_even_and_keep_their_order():
    assert [share(range(7), part, 3) for part in range(3)] == [[0, 1], [2, 3], [4, 5, 6]]
    assert micro_batches([1, 2], 8, 2) == [[1], [2]]
    rows = range(7)  # of two processes one has three, the other four
    assert [len(micro_batches(share(rows, rank, 2), 4, 7 // 2)) for rank in (0, 1)] == [3, 3]
