"""The planner against a simulation: whatever the tree and the budgets, rows see exactly their ancestors."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lydite.engine.plan import Batch, make_plan
from lydite.engine.tokens import Window
from tests.naive import window

IDS = st.lists(st.integers(0, 2), min_size=2, max_size=24)
"""Three different tokens, so that prefixes are shared at all depths."""


@st.composite
def windows_strategy(draw: st.DrawFn) -> list[Window]:
    sequences = draw(st.lists(IDS, min_size=1, max_size=12))
    return [window(ids, draw(st.integers(1, len(ids) - 1))) for ids in sequences]


def prefixes_seen(batches: list[Batch]) -> list[list[list[int]]]:
    """For each batch and row: the ids that it attends to, in the order of their positions. Checks the life of pieces too."""
    kept: dict[int, list[tuple[int, int]]] = {}  # piece -> (id, position) of its rows
    result = []
    for batch in batches:
        rows = list(zip(batch.ids.tolist(), batch.positions.tolist(), strict=True))
        for piece, start, stop in batch.saves:
            assert piece not in kept
            kept[piece] = rows[start:stop]
        seen: list[list[int]] = [[] for _ in rows]
        for block in batch.blocks:
            anchor = []
            for keys in block.anchor:
                found = (rows if keys.piece is None else kept[keys.piece])[keys.start : keys.stop]
                assert keys.piece is not None or keys.stop <= block.start
                assert [position for _, position in found] == list(range(keys.depth, keys.depth + len(found)))
                anchor += found
            mask = block.mask()
            assert mask.shape == (block.stop - block.start, block.stop - block.start)
            for i in range(block.start, block.stop):
                assert not seen[i]
                own = [rows[block.start + j] for j in range(len(mask)) if mask[i - block.start, j]]
                visible = sorted(anchor + own, key=lambda pair: pair[1])
                assert [position for _, position in visible] == list(range(len(visible)))
                assert rows[i][1] == len(visible) - 1
                seen[i] = [token for token, _ in visible]
        for piece in batch.drops:
            del kept[piece]
        longest = max(max(positions for _, positions in rows), 0) + 1
        assert sum(len(piece) for piece in kept.values()) <= longest, "more is kept than one path"
        result.append(seen)
    assert not kept
    return result


def check(windows: list[Window], batches: list[Batch]) -> Counter[tuple[int, ...]]:
    """Every scored token is read once, from a row that saw exactly the tokens before it; returns how often each row exists."""
    seen = prefixes_seen(batches)
    got: Counter[tuple[int, int]] = Counter()
    for batch, prefixes in zip(batches, seen, strict=True):
        for read in batch.reads:
            for k in range(read.count):
                slot = read.slot + k
                asked = windows[read.path]
                assert prefixes[read.row + k] == asked.ids[: asked.first + slot].tolist()
                got[read.path, slot] += 1
    expected = {(i, s): 1 for i, w in enumerate(windows) for s in range(len(w.ids) - w.first)}
    assert got == expected
    return Counter(tuple(prefix) for prefixes in seen for prefix in prefixes)


@settings(max_examples=300, deadline=None)
@given(windows_strategy(), st.integers(1, 40), st.integers(1, 16))
def test_rows_see_their_ancestors_and_are_computed_once(
    windows: list[Window], batch_tokens: int, block_rows: int
) -> None:
    batches = make_plan(windows, batch_tokens=batch_tokens, block_rows=block_rows)
    assert all(0 < len(batch.ids) <= batch_tokens for batch in batches)
    rows = check(windows, batches)
    assert set(rows) == {tuple(w.ids[: n + 1]) for w in windows for n in range(len(w.ids) - 1)}
    assert max(rows.values()) == 1


@settings(max_examples=100, deadline=None)
@given(windows_strategy(), st.integers(1, 40))
def test_without_sharing_no_block_holds_two_windows(windows: list[Window], batch_tokens: int) -> None:
    batches = make_plan(windows, batch_tokens=batch_tokens, share=False)
    assert sum(check(windows, batches).values()) == sum(len(w.ids) - 1 for w in windows)
    for batch in batches:
        for block in batch.blocks:
            assert len(block.parts) == 1


@settings(max_examples=50, deadline=None)
@given(windows_strategy(), st.integers(4, 40))
def test_siblings_are_visited_in_the_order_of_requests(windows: list[Window], batch_tokens: int) -> None:
    """The first request is answered first, so that samples are written while the rest is computed."""
    batches = make_plan(windows, batch_tokens=batch_tokens)
    first_done = next(b for b, batch in enumerate(batches) for read in batch.reads if read.path == 0)
    begun = {batch.reads[0].path for batch in batches[:first_done] if batch.reads}
    assert all(windows[path].ids[0] == windows[0].ids[0] for path in begun)


def test_letters_share_everything() -> None:
    """A hundred questions under one header with four one-letter answers: rows are header + questions, reads come from one row each."""
    header = list(range(100, 400))
    windows = [
        window([*header, *(1000 + q * 7 + k for k in range(7)), letter], 307)
        for q in range(100)
        for letter in (1, 2, 3, 4)
    ]
    batches = make_plan(windows, batch_tokens=256)
    assert sum(len(batch.ids) for batch in batches) == 300 + 700
    rows = Counter((b, read.row) for b, batch in enumerate(batches) for read in batch.reads)
    assert len(rows) == 100
    assert set(rows.values()) == {4}
    assert len(batches) <= 5


def test_batches_are_full() -> None:
    """Nothing is padded and little room is left: at most one block's rows in a batch."""
    windows = [window([i, *range(50, 69)], 1) for i in range(200)]
    batches = make_plan(windows, batch_tokens=500, block_rows=64)
    assert all(len(batch.ids) > 500 - 64 for batch in batches[:-1])


def test_a_document_that_fits_a_batch_is_not_cut() -> None:
    windows = [window([i, *range(50, 250)], 1) for i in range(20)]
    batches = make_plan(windows, batch_tokens=500, block_rows=64)
    assert [len(batch.ids) for batch in batches] == [400] * 10
    assert all(not block.anchor for batch in batches for block in batch.blocks)
    check(windows, batches)


def test_a_document_longer_than_a_batch_continues_in_the_next() -> None:
    windows = [window(list(range(1000)), 1)]
    batches = make_plan(windows, batch_tokens=300)
    assert [len(batch.ids) for batch in batches] == [300, 300, 300, 99]
    check(windows, batches)


def test_deep_trees_do_not_exhaust_the_stack() -> None:
    windows = [window([*range(n), 5000 + n], n) for n in range(1, 1500)]
    batches = make_plan(windows, batch_tokens=400)
    assert sum(len(batch.ids) for batch in batches) == 1499


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_tokens"):
        make_plan([window([1, 2], 1)], batch_tokens=0)
