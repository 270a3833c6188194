"""Documents side by side in one row, none seeing another; and whether a network sees what it must not.

The rows of an epoch are planned at once, by best fit: pieces from the longest down, each into the row whose free room it
fills best. The plan is a function of (seed, epoch); the number of rows is the same in every epoch.
"""

import inspect
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor, nn

from lydite.errors import ModelError
from lydite.training.batch import Ints, TrainBatch
from lydite.training.objectives.base import generator
from lydite.training.objectives.forward import inner, run, token_logits
from lydite.training.objectives.streams import Stream, permutation

_CHECKED: WeakSet[nn.Module] = WeakSet()
_CAUSAL: WeakSet[nn.Module] = WeakSet()


class Packing:
    """Rows of at most `context` predicted positions out of whole documents of a stream.

    A document of n + 1 tokens (with what stands before and after it) has n predictions; one with more than `context` is cut,
    each piece beginning with the last token of the one before, so that nothing is predicted twice or left out.
    """

    def __init__(self, stream: Stream, context: int, seed: int) -> None:
        self._stream, self._context, self._seed = stream, context, seed
        begins, predictions = stream.starts[:-1], np.diff(stream.starts) - 1
        keep = predictions > 0
        begins, predictions = begins[keep], predictions[keep]
        counts = -(-predictions // context)
        number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        self._starts = np.repeat(begins, counts) + number * context
        self._lengths = np.minimum(np.repeat(predictions, counts) - number * context, context)
        self._plan: tuple[int, Ints, Ints] | None = None

    def num_rows(self, epoch: int) -> int:
        return len(self._rows(epoch)[1]) - 1

    def row(self, epoch: int, index: int) -> list[Ints]:
        """The pieces of a row, each with one token more than it predicts."""
        pieces, borders = self._rows(epoch)
        chosen = pieces[borders[index] : borders[index + 1]]
        return [
            self._stream.read(int(self._starts[piece]), int(self._starts[piece] + self._lengths[piece]) + 1)
            for piece in chosen
        ]

    def _rows(self, epoch: int) -> tuple[Ints, Ints]:
        """The pieces in the order of the rows, and where each row starts among them."""
        if self._plan is None or self._plan[0] != epoch:
            order = permutation(len(self._lengths), self._seed, epoch)
            rows = best_fit(self._lengths[order], self._context)
            by_row = np.argsort(rows, kind="stable")
            sizes = np.bincount(rows)
            shuffled = generator(self._seed, epoch, 1).permutation(len(sizes))
            starts = np.cumsum(sizes) - sizes
            pieces = np.concatenate([order[by_row[starts[row] : starts[row] + sizes[row]]] for row in shuffled])
            self._plan = epoch, pieces, np.concatenate([[0], np.cumsum(sizes[shuffled])])
        return self._plan[1], self._plan[2]


def best_fit(lengths: Ints, room: int) -> Ints:
    """The row of each piece: longest first, each into the fullest row that still takes it (best-fit decreasing).

    Rows are kept by their free room; one bit a size says which sizes there are, so that the search is one operation on
    whole numbers whatever the number of rows.
    """
    rows = np.empty(len(lengths), dtype=np.int64)
    free: list[list[int]] = [[] for _ in range(room + 1)]
    sizes, count = 0, 0
    order = np.argsort(-lengths, kind="stable")
    for piece, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        fitting = sizes >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            row = free[space].pop()
            if not free[space]:
                sizes &= ~(1 << space)
        else:
            space, row = room, count
            count += 1
        rows[piece] = row
        left = space - length
        if left:
            free[left].append(row)
            sizes |= 1 << left
    return rows


def check_packing(network: nn.Module, batch: TrainBatch) -> None:
    """Raises ModelError where a document of a packed row sees another one. Tried once for each network.

    transformers makes block-diagonal masks from positions that start again, in most architectures but not in all. The trial
    changes the first document of a row and looks whether the states of the second move.
    """
    inside = inner(network)
    if inside in _CHECKED:
        return
    if "position_ids" not in inspect.signature(inside.forward).parameters:
        raise ModelError(f'{type(inside).__name__} takes no positions, so nothing can be packed; set layout = "blocks"')
    positions = batch.inputs["position_ids"]
    starts = [(positions[row] == 0).nonzero().squeeze(1).tolist() for row in range(len(positions))]
    row = max(range(len(starts)), key=lambda r: len(starts[r]))
    if len(starts[row]) < 2:
        return  # nothing is packed here; tried with the first batch in which something is
    ids = batch.inputs["input_ids"][row : row + 1]
    second = starts[row][1]
    other = ids.clone()
    other[:, :second] = (ids[:, :second] + 1) % int(ids.max() + 1 if ids.max() else 2)
    moved = _moved(inside, ids, other, {"position_ids": positions[row : row + 1]})
    # The shapes are the same, so what is computed apart is the same to the last bit.
    if float(moved[:, second:].max()) > 1e-5 * float(moved[:, :second].max()):
        raise ModelError(
            f'{type(inside).__name__} lets packed documents see each other; set layout = "blocks" for this architecture'
        )
    _CHECKED.add(inside)


def check_causal(network: nn.Module, batch: TrainBatch) -> None:
    """Raises ModelError where a token sees those behind it (BERT's kin, XLNet): the labels would be among what is seen. Tried
    once for each network, on the beginning of a row, of which the second half is changed."""
    inside = inner(network)
    ids = batch.inputs["input_ids"][:1, :16]
    if inside in _CAUSAL or ids.shape[1] < 2:
        return
    middle = ids.shape[1] // 2
    other = ids.clone()
    other[:, middle:] = (ids[:, middle:] + 1) % int(ids.max() + 1 if ids.max() else 2)
    moved = _moved(inside, ids, other, {})
    # Experts are given other tokens beside a row's own, so bfloat16 may round otherwise.
    rounding = 1e-3 if any(weight.dtype == torch.bfloat16 for weight in inside.parameters()) else 1e-5
    if float(moved[:, :middle].max()) > rounding * float(moved[:, middle:].max()):
        raise ModelError(
            f"{type(inside).__name__} lets a token see those behind it, which causal predicts; take a decoder (gpt2, llama), "
            "for BERT and its kin set model.config.is_decoder = true, or take the objective masked (XLNet: permutation)"
        )
    _CAUSAL.add(inside)


def _moved(network: nn.Module, ids: Tensor, other: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    """How far the logits [1, L, V] of one row move when its tokens are others; the network is left in the mode it was in."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        with torch.no_grad():
            before, after = (
                token_logits(run(network, {"input_ids": tokens, **inputs})).float() for tokens in (ids, other)
            )
    finally:
        for module in training:
            module.training = True
    return (after - before).abs()
