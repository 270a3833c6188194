"""Token sequences to packed batches in which every distinct token position is computed once.

All sequences that are to be scored form a prefix tree: instructions and shots shared by all questions, a question
shared by its choices, first tokens shared by choices. The tree is cut into chains (nodes without a branch), the chains
are laid out depth first in batches of at most `batch_tokens` rows, and each batch is cut into blocks, the units of
attention. A row attends to its ancestors and to nothing else:

    keys of a block = its anchor (the path from the root to the block's common parent: all of it visible to every row)
                    + the block's own rows (visible along the tree inside the block)

A chain that is longer than a batch continues in the next one. What later batches need of earlier ones is kept as pieces;
because the order is depth first these are never more than one path of the tree, so memory is bounded by the longest
sequence. Prefixes whose keys and values are at hand already (`cached`) are in the tree and cost no rows; what is worth
keeping beyond the plan (the ends of prompts that are to be continued, prefixes that many sequences share) is named as
`Keep`s. Pure Python and numpy: no model is needed to test it.

Contract: each scored token of each sequence is read exactly once, from the row of the token before it; rows with equal
ancestors are one row; no batch has more rows than asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lydite.engine.tokens import Window

Ints = npt.NDArray[np.int64]
SHARED_BRANCHES = 6
SHARED_TOKENS = 32
"""A prefix of so many tokens with so many branches is worth keeping for sequences to come."""


@dataclass(frozen=True, slots=True)
class Keys:
    """A run of key rows in the order of depth: rows of this batch (`piece` None), of a piece kept from an earlier one, or
    of a cached prefix (piece -1 - number of the prefix)."""

    piece: int | None
    start: int
    stop: int
    depth: int
    """Position in its sequence of the first of them."""


@dataclass(frozen=True, slots=True)
class Part:
    """A run of a block's rows (counted from the block's first row) that is one chain."""

    start: int
    stop: int
    parent: int
    """The block's row that it hangs from; -1: the anchor."""


@dataclass(frozen=True, slots=True)
class Block:
    """A unit of attention: rows [start, stop) of the batch."""

    start: int
    stop: int
    anchor: tuple[Keys, ...]
    parts: tuple[Part, ...]

    def mask(self) -> npt.NDArray[np.bool_]:
        """[rows, rows]: which of the block's own rows each row attends to (itself and its ancestors)."""
        size = self.stop - self.start
        mask = np.zeros((size, size), dtype=np.bool_)
        for part in self.parts:
            if part.parent >= 0:
                mask[part.start : part.stop, : part.start] = mask[part.parent, : part.start]
            width = part.stop - part.start
            mask[part.start : part.stop, part.start : part.stop] = np.tri(width, dtype=np.bool_)
        return mask


@dataclass(frozen=True, slots=True)
class Read:
    """Rows [row, row + count) give the distributions of the scored tokens [slot, slot + count) of sequence `path`."""

    path: int
    slot: int
    row: int
    count: int


@dataclass(frozen=True, slots=True)
class Keep:
    """The keys and values of tokens [0, stop) of sequence `path` stand in `runs`, in order, once the batch is computed."""

    path: int
    stop: int
    runs: tuple[Keys, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass."""

    ids: Ints
    """[rows]"""
    positions: Ints
    """[rows]: number of ancestors."""
    blocks: tuple[Block, ...]
    reads: tuple[Read, ...]
    saves: tuple[tuple[int, int, int], ...]
    """(piece, start, stop): rows whose keys and values later batches need."""
    drops: tuple[int, ...]
    """Pieces that nobody needs after this batch."""
    keeps: tuple[Keep, ...] = ()


@dataclass(slots=True)
class _Node:
    """A chain of the tree: tokens [start, stop) of sequence `path`."""

    path: int
    start: int
    stop: int
    parent: int
    size: int = 0
    """Rows of the whole subtree."""
    order: int = 0
    """The first sequence that needs it: siblings are visited in this order, so that answers come out roughly as asked."""
    children: list[int] = field(default_factory=list)
    pieces: list[Keys] = field(default_factory=list)
    """Where its rows were laid out; here `piece` is a number for every piece, kept or not."""
    cached: int | None = None
    """The cached prefix that holds its rows."""
    keep: list[int] = field(default_factory=list)
    """Sequences for which its end is to be kept."""


@dataclass(slots=True)
class _Open:
    """The batch that is being filled."""

    number: int
    ids: list[Ints] = field(default_factory=list)
    positions: list[Ints] = field(default_factory=list)
    rows: int = 0
    blocks: list[Block] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    saves: dict[int, tuple[int, int]] = field(default_factory=dict)
    drops: list[int] = field(default_factory=list)
    keeps: list[Keep] = field(default_factory=list)


def make_plan(
    windows: Sequence[Window],
    *,
    batch_tokens: int = 2048,
    block_rows: int = 128,
    share: bool = True,
    cached: Sequence[Ints] = (),
    keep: Literal["nothing", "ends", "shared"] = "nothing",
) -> list[Batch]:
    """Batches that score all windows; `Read.path` is the index into `windows`.

    `share=False` computes every window for itself in a block of its own: no value of one can then reach another, which
    is how not-a-number is traced to the sequence that it came from. `cached`: prefixes whose keys and values are at
    hand; none may hold a row that is read. `keep`: `ends` keeps all inputs of every window, `shared` the prefixes from
    which at least SHARED_BRANCHES branches go off.
    """
    if batch_tokens < 1:
        raise ValueError(f"batch_tokens must be at least 1, not {batch_tokens}")
    inputs = [np.asarray(window.ids[:-1], dtype=np.int64) for window in windows]
    if share:
        nodes, leaves = _tree([*inputs, *cached])
        for number, leaf in enumerate(leaves[len(inputs) :]):
            _mark_cached(nodes, leaf, number)
        del leaves[len(inputs) :]
    else:
        assert not cached
        nodes, leaves = _forest(inputs)
    _measure(nodes, leaves)
    if keep == "ends":
        for path, leaf in enumerate(leaves):
            nodes[leaf].keep.append(path)
    elif keep == "shared":
        _keep_shared(nodes)
    inputs = [*inputs, *cached]
    layout = _Layout(inputs, nodes, batch_tokens, min(block_rows, batch_tokens), mix=share)
    layout.run()
    layout.place_reads(windows, leaves)
    return layout.finished()


def _forest(inputs: Sequence[Ints]) -> tuple[list[_Node], list[int]]:
    nodes = [_Node(i, 0, len(ids), -1) for i, ids in enumerate(inputs)]
    return nodes, list(range(len(inputs)))


def _tree(inputs: Sequence[Ints]) -> tuple[list[_Node], list[int]]:
    """The prefix tree of the sequences as chains, and for each sequence the chain that it ends in."""
    keys = [ids.astype(">u4").tobytes() for ids in inputs]  # big-endian bytes sort as the numbers do
    nodes: list[_Node] = []
    leaves = [-1] * len(inputs)
    stack: list[int] = []  # the path to the end of the previous sequence
    last: Ints = np.zeros(0, dtype=np.int64)
    for i in sorted(range(len(inputs)), key=keys.__getitem__):
        ids = inputs[i]
        shared = common(last, ids)
        while stack and nodes[stack[-1]].start >= shared:
            stack.pop()
        if stack and nodes[stack[-1]].stop > shared:
            lower = nodes[stack[-1]]
            nodes.append(_Node(lower.path, lower.start, shared, lower.parent))
            lower.start, lower.parent = shared, len(nodes) - 1
            stack[-1] = len(nodes) - 1
        if len(ids) > shared:
            nodes.append(_Node(i, shared, len(ids), stack[-1] if stack else -1))
            stack.append(len(nodes) - 1)
        leaves[i] = stack[-1]
        last = ids
    return nodes, leaves


def _mark_cached(nodes: list[_Node], leaf: int, number: int) -> None:
    """All nodes on the path to `leaf` are held by the cached prefix `number`."""
    while leaf >= 0 and nodes[leaf].cached is None:
        node = nodes[leaf]
        node.cached = number
        node.pieces.append(Keys(-1 - number, node.start, node.stop, node.start))
        leaf = node.parent


def _keep_shared(nodes: list[_Node]) -> None:
    """Name the deepest prefixes that many branches share; a shorter one is part of them."""
    inner: set[int] = set()
    for number in sorted(range(len(nodes)), key=lambda n: -nodes[n].start):  # the deepest first
        node = nodes[number]
        wanted = len(node.children) >= SHARED_BRANCHES and node.stop >= SHARED_TOKENS
        if wanted and node.cached is None and number not in inner:
            node.keep.append(node.path)
        if (wanted or number in inner) and node.parent >= 0:
            inner.add(node.parent)


def common(a: npt.NDArray[np.integer[Any]], b: npt.NDArray[np.integer[Any]]) -> int:
    """Length of the common prefix."""
    size = min(len(a), len(b))
    differs = a[:size] != b[:size]
    return int(differs.argmax()) if differs.any() else size


def _measure(nodes: list[_Node], leaves: Sequence[int]) -> None:
    """Fill in size, order and children; children stand deeper than their parents, so the deepest go first."""
    for node in nodes:
        node.size, node.order = 0 if node.cached is not None else node.stop - node.start, len(leaves)
    for i, leaf in enumerate(leaves):
        nodes[leaf].order = min(nodes[leaf].order, i)
    for number in sorted(range(len(nodes)), key=lambda n: -nodes[n].start):
        node = nodes[number]
        if node.parent >= 0:
            parent = nodes[node.parent]
            parent.size += node.size
            parent.order = min(parent.order, node.order)
            parent.children.append(number)
    for node in nodes:
        node.children.sort(key=lambda n: nodes[n].order)


class _Layout:
    """Walks the tree depth first and fills batches."""

    def __init__(
        self, inputs: Sequence[Ints], nodes: list[_Node], batch_tokens: int, block_rows: int, *, mix: bool
    ) -> None:
        self.inputs = inputs
        self.nodes = nodes
        self.batch_tokens = batch_tokens
        self.block_rows = block_rows
        self.mix = mix
        self.batches: list[_Open] = [_Open(0)]
        self.homes: list[int] = []  # piece -> number of its batch
        self.rows: list[tuple[int, int]] = []  # piece -> its rows there
        self.last_use: dict[int, int] = {}
        self.parent = -2  # of the open block's subtrees; -2: no block is open
        self.first = 0  # the open block's first row
        self.parts: list[Part] = []

    def run(self) -> None:
        roots = [n for n, node in enumerate(self.nodes) if node.parent < 0]
        stack = sorted(roots, key=lambda n: -self.nodes[n].order)
        while stack:
            number = stack.pop()
            node = self.nodes[number]
            if node.cached is not None:
                stack.extend(reversed(node.children))
            elif node.size <= self.block_rows:
                self._subtree(number)
            else:
                self._chain(number)
                stack.extend(reversed(node.children))
        self._close_block()

    # ------------------------------------------------------------------------------- blocks of rows

    @property
    def batch(self) -> _Open:
        return self.batches[-1]

    def _close_block(self) -> None:
        if self.parts:
            anchor = self._anchor(self.parent)
            self.batch.blocks.append(Block(self.first, self.batch.rows, anchor, tuple(self.parts)))
        self.parts, self.parent = [], -2

    def _open_block(self, parent: int) -> None:
        self._close_block()
        self.parent, self.first = parent, self.batch.rows

    def _new_batch(self) -> None:
        self._close_block()
        self.batches.append(_Open(len(self.batches)))

    def _anchor(self, number: int) -> tuple[Keys, ...]:
        """The path from the root to the end of this node, as keys for the open batch; earlier batches must keep theirs."""
        path: list[Keys] = []
        while number >= 0:
            path.extend(reversed(self.nodes[number].pieces))
            number = self.nodes[number].parent
        keys: list[Keys] = []
        for piece in reversed(path):
            assert piece.piece is not None
            if piece.piece < 0:
                run = piece
            elif self.homes[piece.piece] == self.batch.number:
                run = Keys(None, piece.start, piece.stop, piece.depth)
            else:
                self.batches[self.homes[piece.piece]].saves[piece.piece] = self.rows[piece.piece]
                self.last_use[piece.piece] = self.batch.number
                run = Keys(piece.piece, 0, piece.stop - piece.start, piece.depth)
            if keys and (keys[-1].piece, keys[-1].stop) == (run.piece, run.start):  # the same rows go on
                run = Keys(run.piece, keys[-1].start, run.stop, keys.pop().depth)
            keys.append(run)
        return tuple(keys)

    def _keep(self, number: int) -> None:
        """Name the end of a node, whose rows are laid out, for keeping."""
        node = self.nodes[number]
        if node.keep:
            runs = self._anchor(number)
            self.batch.keeps.extend(Keep(path, node.stop, runs) for path in node.keep)

    def _rows(self, number: int, start: int, stop: int) -> int:
        """Append tokens [start, stop) of a node's sequence to the batch; its first row."""
        node, batch = self.nodes[number], self.batch
        row, count = batch.rows, stop - start
        batch.ids.append(self.inputs[node.path][start:stop])
        batch.positions.append(np.arange(start, stop, dtype=np.int64))
        batch.rows += count
        node.pieces.append(Keys(len(self.homes), row, row + count, start))
        self.homes.append(batch.number)
        self.rows.append((row, row + count))
        return row

    def _subtree(self, number: int) -> None:
        """A subtree that fits into one block; siblings share the block while there is room."""
        node = self.nodes[number]
        if self.batch.rows + node.size > self.batch_tokens:
            self._new_batch()
        fits = self.mix and self.parent == node.parent and self.batch.rows - self.first + node.size <= self.block_rows
        if not fits:
            self._open_block(node.parent)
        stack = [(number, -1)]
        while stack:
            current, parent_row = stack.pop()
            node = self.nodes[current]
            row = self._rows(current, node.start, node.stop) - self.first
            end = row + node.stop - node.start
            self.parts.append(Part(row, end, parent_row))
            self._keep(current)
            stack.extend((child, end - 1) for child in reversed(node.children))

    def _chain(self, number: int) -> None:
        """A node whose subtree is large: its own rows, in as many batches as they need, each a block of its own."""
        self._close_block()
        node = self.nodes[number]
        done, size = node.start, node.stop - node.start
        room = self.batch_tokens - self.batch.rows
        if room < size <= self.batch_tokens and room <= self.batch_tokens * 3 // 4:
            self._new_batch()  # a chain in one piece is attended to faster than one in two
        while done < node.stop:
            if self.batch.rows >= self.batch_tokens:
                self._new_batch()
            stop = min(node.stop, done + self.batch_tokens - self.batch.rows)
            anchor = self._anchor(number)
            row = self._rows(number, done, stop)
            self.batch.blocks.append(Block(row, self.batch.rows, anchor, (Part(0, stop - done, -1),)))
            done = stop
        self._keep(number)

    # --------------------------------------------------------------------------------------- the end

    def place_reads(self, windows: Sequence[Window], leaves: Sequence[int]) -> None:
        """Each scored token is read from the row of the token before it."""
        for path, (window, leaf) in enumerate(zip(windows, leaves, strict=True)):
            begin = window.first - 1  # depths [begin, len(ids) - 1) are read
            number, end = leaf, len(window.ids) - 1
            while number >= 0 and end > begin:
                for piece in self.nodes[number].pieces:
                    low = max(piece.depth, begin)
                    high = min(piece.depth + piece.stop - piece.start, end)
                    if low < high:
                        assert piece.piece is not None
                        assert piece.piece >= 0, "a cached prefix has no rows to read"
                        read = Read(path, low - begin, piece.start + low - piece.depth, high - low)
                        self.batches[self.homes[piece.piece]].reads.append(read)
                end = min(end, self.nodes[number].start)
                number = self.nodes[number].parent

    def finished(self) -> list[Batch]:
        for piece, number in self.last_use.items():
            self.batches[number].drops.append(piece)
        return [
            Batch(
                ids=np.concatenate(batch.ids),
                positions=np.concatenate(batch.positions),
                blocks=tuple(batch.blocks),
                reads=tuple(batch.reads),
                saves=tuple((piece, start, stop) for piece, (start, stop) in batch.saves.items()),
                drops=tuple(batch.drops),
                keeps=tuple(batch.keeps),
            )
            for batch in self.batches
            if batch.rows
        ]
