"""Packed-tree attention that transformers' own models call.

transformers looks attention and mask functions up by name. Ours is registered as `lydite_tree`: while a `TreePass` is
active it computes, block by block, what the plan says (a row attends to its ancestors and itself); outside of one it
refuses to run. The mask function makes no mask, it only passes the width of a sliding window on to the layers.

Contract: whatever a model asks of its attention is either computed (scaling, grouped heads, sliding windows, soft caps,
attention sinks) or refused with `Unsupported`; nothing is ignored. Who calls `attach` must compare the results with the
plain path before trusting them (score.py does), because some architectures never call the function.

Shapes: T rows of the batch, H query heads, G query heads for each key head, K keys, D head width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from lydite.engine.plan import Batch, Block, Keys

NAME = "lydite_tree"
CHUNK_ROWS = 256
"""Long chains are attended to in chunks of so many rows, so that masks stay small."""

_HARMLESS = frozenset(
    {"position_ids", "cache_position", "use_cache", "output_attentions", "output_hidden_states", "return_dict"}
)
"""Keywords that say nothing about what attends to what."""


class Unsupported(Exception):
    """A model asks something of its attention that the packed tree does not compute; the plain path must be used."""


class Store:
    """Keys and values of pieces that later batches need: piece -> one (keys, values) a layer, each [H/G, rows, D]."""

    def __init__(self) -> None:
        self._pieces: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def save(self, piece: int, layer: int, keys: Tensor, values: Tensor) -> None:
        layers = self._pieces.setdefault(piece, [])
        assert len(layers) == layer
        layers.append((keys.clone(), values.clone()))

    def load(self, piece: int, layer: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        keys, values = self._pieces[piece][layer]
        return keys[:, start:stop], values[:, start:stop]

    def drop(self, piece: int) -> None:
        del self._pieces[piece]

    def __len__(self) -> int:
        return len(self._pieces)


@dataclass(slots=True)
class _Call:
    """One attention product: rows of the batch against runs of keys."""

    start: int
    stop: int
    keys: tuple[Keys, ...]
    mask: Tensor | None
    """[rows, keys], 0 or -inf; None: causal, the keys being the rows themselves."""
    folded: dict[int, Tensor] = field(default_factory=dict)

    def folded_mask(self, groups: int) -> Tensor:
        """The mask for G query heads stacked as rows: [G * rows, keys]."""
        assert self.mask is not None
        if groups not in self.folded:
            self.folded[groups] = self.mask.repeat(groups, 1)
        return self.folded[groups]


class TreePass:
    """One batch on its way through the layers."""

    def __init__(self, batch: Batch, store: Store, dtype: torch.dtype) -> None:
        self.batch = batch
        self.store = store
        self.dtype = dtype
        self.layer = 0
        """How many attention layers have been called."""
        self._calls: dict[int | None, list[_Call]] = {}

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scale: float | None,
        window: int | None,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Tensor:
        """query [1, H, T, D], key and value [1, H/G, T, D] -> [1, T, H, D of value]."""
        keys, values = key[0], value[0]
        for piece, start, stop in self.batch.saves:
            self.store.save(piece, self.layer, keys[:, start:stop], values[:, start:stop])
        if window is not None and window > int(self.batch.positions.max()):
            window = None
        if window not in self._calls:
            self._calls[window] = [
                call for block in self.batch.blocks for call in _lower(block, self.batch, window, query, self.dtype)
            ]
        output = query.new_empty(query.shape[2], query.shape[1], value.shape[3])
        for call in self._calls[window]:
            k, v = self._gather(call.keys, keys, values)
            rows = _product(query[0, :, call.start : call.stop], k, v, call, scale, softcap, sinks)
            output[call.start : call.stop] = rows.transpose(0, 1)
        self.layer += 1
        return output[None]

    def _gather(self, runs: tuple[Keys, ...], keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        parts = [
            (keys[:, run.start : run.stop], values[:, run.start : run.stop])
            if run.piece is None
            else self.store.load(run.piece, self.layer, run.start, run.stop)
            for run in runs
        ]
        if len(parts) == 1:
            return parts[0]
        return torch.cat([k for k, _ in parts], dim=1), torch.cat([v for _, v in parts], dim=1)


def _product(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    call: _Call,
    scale: float | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """query [H, rows, D], keys and values [H/G, K, D] -> [H, rows, D]."""
    heads, rows, width = query.shape
    groups = heads // keys.shape[0]
    plain = softcap is None and sinks is None
    if call.mask is None and plain:
        if groups > 1:
            keys, values = keys.repeat_interleave(groups, 0), values.repeat_interleave(groups, 0)
        return scaled_dot_product_attention(query[None], keys[None], values[None], is_causal=True, scale=scale)[0]
    stacked = query.reshape(keys.shape[0], groups * rows, width)
    if plain:
        mask = call.folded_mask(groups)
        out = scaled_dot_product_attention(stacked[None], keys[None], values[None], attn_mask=mask, scale=scale)[0]
        return out.reshape(heads, rows, -1)
    scores = (stacked @ keys.transpose(1, 2)) * (width**-0.5 if scale is None else scale)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.view(heads, rows, -1)
    if call.mask is None:
        blocked = torch.ones(rows, rows, dtype=torch.bool, device=query.device).triu(1)
        scores = scores.masked_fill(blocked, -torch.inf)
    else:
        scores = scores + call.mask
    if sinks is not None:
        column = sinks.to(scores.dtype).view(heads, 1, 1).expand(heads, rows, 1)
        weights = torch.cat([scores, column], dim=-1).softmax(-1, dtype=torch.float32)[..., :-1]
    else:
        weights = scores.softmax(-1, dtype=torch.float32)
    stacked = weights.to(values.dtype).view(keys.shape[0], groups * rows, -1)
    return (stacked @ values).view(heads, rows, -1)


# ---------------------------------------------------------------------------------- from blocks to calls


def _lower(block: Block, batch: Batch, window: int | None, like: Tensor, dtype: torch.dtype) -> Iterator[_Call]:
    """The products of one block under a sliding window (None: none that matters)."""
    size = block.stop - block.start
    chain = len(block.parts) == 1
    if chain and not block.anchor and window is None:
        yield _Call(block.start, block.stop, (Keys(None, block.start, block.stop, 0),), None)
        return
    own = torch.from_numpy(block.mask()) if not chain else None
    step = CHUNK_ROWS if chain else size
    positions = torch.from_numpy(batch.positions)
    for start in range(block.start, block.stop, step):
        stop = min(block.stop, start + step)
        where = positions[start:stop]
        runs = (*block.anchor, Keys(None, block.start, stop, int(batch.positions[block.start])))
        runs = tuple(
            _trim(run, int(where.min()), window) if n < len(block.anchor) or chain else run
            for n, run in enumerate(runs)
        )
        runs = tuple(run for run in runs if run.stop > run.start)
        anchored = [torch.arange(run.depth, run.depth + run.stop - run.start) for run in runs[:-1]]
        last = runs[-1]
        depths = torch.cat([*anchored, positions[last.start : last.stop]])
        if chain:
            seen = depths[None] <= where[:, None]
        else:
            assert own is not None
            seen = torch.cat([torch.ones(size, len(depths) - size, dtype=torch.bool), own], dim=1)
        if window is not None:
            seen &= depths[None] > where[:, None] - window
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -torch.inf)
        yield _Call(start, stop, runs, mask.to(like.device))


def _trim(run: Keys, lowest: int, window: int | None) -> Keys:
    """Leave out keys that even the row at the lowest position no longer sees."""
    if window is None:
        return run
    skip = min(max(0, lowest - window + 1 - run.depth), run.stop - run.start)
    return Keys(run.piece, run.start + skip, run.stop, run.depth + skip)


# ----------------------------------------------------------------------------- what transformers calls

_ACTIVE: ContextVar[TreePass | None] = ContextVar("lydite_tree_pass", default=None)


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """The attention function: the signature is transformers'."""
    active = _ACTIVE.get()
    if active is None:
        raise Unsupported(f"{NAME} was called outside of a packed batch")
    unknown = sorted(name for name, given in more.items() if given is not None and name not in _HARMLESS)
    if unknown or dropout or is_causal is False:
        raise Unsupported(f"attention asks for {', '.join(unknown) or 'dropout or sight of the future'}")
    if query.shape[0] != 1 or query.shape[2] != key.shape[2] or query.shape[1] % key.shape[1]:
        raise Unsupported(f"attention over shapes {tuple(query.shape)} and {tuple(key.shape)}")
    window = None if attention_mask is None else int(attention_mask)
    if sliding_window is not None and sliding_window != window:
        raise Unsupported(f"a layer's window is {sliding_window}, but its mask's is {window}")
    out = active.attend(query, key, value, scale=scaling, window=window, softcap=softcap, sinks=s_aux)
    return out, None


def _mask(
    *,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_bidirectional_skip: bool = False,
    use_vmap: bool = False,
    **layout: Any,
) -> Tensor | None:
    """The mask function: no mask; a layer with a sliding window gets its width as a tensor of one number."""
    if attention_mask is not None or use_vmap or allow_is_bidirectional_skip:
        raise Unsupported("the model changes the causal mask")
    return None if local_size is None else torch.full((1, 1, 1, 1), local_size, dtype=torch.int64)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)


@contextmanager
def active(model: PreTrainedModel, tree_pass: TreePass) -> Iterator[None]:
    """Inside, `model` attends as `tree_pass` says; afterwards it has its own attention back."""
    before = model.config._attn_implementation
    token = _ACTIVE.set(tree_pass)
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        _ACTIVE.reset(token)
