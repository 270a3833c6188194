"""Packed-tree attention that transformers' own models call.

transformers looks attention and mask functions up by name. Ours is registered as `lydite_tree`: while a `TreePass` is
active it computes, block by block, what the plan says (a row attends to its ancestors and itself); outside of one it
refuses to run. The mask function makes no mask, it only passes the width of a sliding window on to the layers.

Contract: whatever a model asks of its attention is either computed (scaling, grouped heads, sliding windows, soft caps,
attention sinks) or refused with `Unsupported`; nothing is ignored. Who calls `attach` must compare the results with the
plain path before trusting them (score.py does), because some architectures never call the function.

Shapes: T rows of the batch, H query heads, G query heads for each key head, K keys, D head width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig, PreTrainedModel

from lydite.engine import products
from lydite.engine.plan import Batch, Block, Ints, Keep, Keys
from lydite.engine.products import Products

NAME = "lydite_tree"
CHUNK_ROWS = 256
"""Long chains are attended to in chunks of at most so many rows, fewer where the mask would be larger than MASK_SIZE."""
MASK_SIZE = 1 << 20
KEPT_SIZE = 1 << 18
"""Masks of so many numbers are kept from layer to layer, larger ones are made anew."""

_HARMLESS = frozenset(
    {"position_ids", "cache_position", "use_cache", "output_attentions", "output_hidden_states", "return_dict"}
)
"""Keywords that say nothing about what attends to what."""


class Unsupported(Exception):
    """A model asks something of its attention that the packed tree does not compute; the plain path must be used."""


Layers = list[tuple[Tensor, Tensor]]
"""Keys and values of a run of rows, one pair a layer, each [H/G, rows, D]."""
KeepTaker = Callable[[Keep, int, Tensor, Tensor], None]
"""Takes what a plan says to keep: the Keep, the number of the layer, keys and values [H/G, stop, D] (to be copied)."""


class Store:
    """Keys and values of pieces that later batches need, and of the cached prefixes that a plan was made with."""

    def __init__(self, cached: Sequence[Layers] = (), take: KeepTaker | None = None) -> None:
        self.cached = cached
        self.take = take
        self._pieces: dict[int, Layers] = {}

    def save(self, piece: int, layer: int, keys: Tensor, values: Tensor) -> None:
        layers = self._pieces.setdefault(piece, [])
        assert len(layers) == layer
        layers.append((keys.clone(), values.clone()))

    def load(self, piece: int, layer: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        keys, values = self._pieces[piece][layer] if piece >= 0 else self.cached[-1 - piece][layer]
        return keys[:, start:stop], values[:, start:stop]

    def drop(self, piece: int) -> None:
        del self._pieces[piece]

    def __len__(self) -> int:
        return len(self._pieces)


@dataclass(frozen=True, slots=True)
class Rule:
    """What a layer asks of its attention."""

    scale: float | None
    """Factor on scores; None: 1 / sqrt(D)."""
    window: int | None
    """How many positions back a row sees, itself included; None: all."""
    softcap: float | None
    sinks: Tensor | None
    """[H], one learned score a head."""

    @property
    def is_plain(self) -> bool:
        return self.softcap is None and self.sinks is None


@dataclass(slots=True)
class _Call:
    """One attention product: rows of the batch against runs of keys."""

    start: int
    stop: int
    runs: tuple[Keys, ...]
    make_mask: Callable[[], Tensor] | None
    """Gives [rows, keys], 0 or -inf; None: causal, the keys being those of `lead` earlier rows and the rows themselves."""
    lead: int = 0
    kept: Tensor | None = None

    def mask(self) -> Tensor | None:
        if self.kept is not None or self.make_mask is None:
            return self.kept
        mask = self.make_mask()
        if mask.numel() <= KEPT_SIZE:
            self.kept = mask
        return mask


class Pass(Protocol):
    """A forward pass whose attention is computed here."""

    layer: int
    """How many attention layers have been called."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
        """query [1, H, T, D], key and value [1, H/G, T, D] -> [1, T, H, D of value]."""


class TreePass:
    """One batch of a plan on its way through the layers."""

    def __init__(self, batch: Batch, store: Store, products: Products | None = None) -> None:
        self.batch = batch
        self.store = store
        self.products = products or Products()
        self.layer = 0
        self._calls: dict[int | None, list[_Call]] = {}

    def attend(self, query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
        """As in Pass; rows as the batch lays them out."""
        keys, values = key[0], value[0]
        for piece, start, stop in self.batch.saves:
            self.store.save(piece, self.layer, keys[:, start:stop], values[:, start:stop])
        for keep in self.batch.keeps:
            assert self.store.take is not None
            self.store.take(keep, self.layer, *self._gather(keep.runs, keys, values))
        window = None if rule.window is None or rule.window > int(self.batch.positions.max()) else rule.window
        if window not in self._calls:
            self._calls[window] = [
                call for block in self.batch.blocks for call in _lower(block, self.batch, window, query)
            ]
        output = query.new_empty(query.shape[2], query.shape[1], value.shape[3])
        for call in self._calls[window]:
            k, v = self._gather(call.runs, keys, values)
            rows = self._rows(query[0, :, call.start : call.stop], k, v, call, rule)
            output[call.start : call.stop] = rows.transpose(0, 1)
        self.layer += 1
        return output[None]

    def _rows(self, query: Tensor, keys: Tensor, values: Tensor, call: _Call, rule: Rule) -> Tensor:
        """query [H, rows, D], keys and values [H/G, K, D] -> [H, rows, D]."""
        mask = call.mask()

        def theirs() -> Tensor:
            # Queries of nought stand in for the earlier rows, so that the causal kernel can be used.
            asking = pad(query, (0, 0, call.lead, 0)) if call.lead else query
            return _product(asking, keys, values, mask, rule)[:, call.lead :]

        if not rule.is_plain or not self.products.take(query, keys):
            return theirs()
        return self.products.faster(lambda: products.attend(query, keys, values, mask, call.lead, rule.scale), theirs)

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


def _product(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, rule: Rule) -> Tensor:
    """query [H, rows, D], keys and values [H/G, K, D], mask [rows, K] (None: causal) -> [H, rows, D]."""
    heads, rows, width = query.shape
    query = query.reshape(keys.shape[0], -1, rows, width)  # [H/G, G, rows, D]
    keys, values = keys[:, None], values[:, None]
    if rule.is_plain:
        shape = (*query.shape[:2], keys.shape[2], -1)
        causal = mask is None
        out = scaled_dot_product_attention(
            query, keys.expand(shape), values.expand(shape), attn_mask=mask, is_causal=causal, scale=rule.scale
        )
        return out.flatten(0, 1)
    scores = (query @ keys.transpose(2, 3)).flatten(0, 1) * (width**-0.5 if rule.scale is None else rule.scale)
    if rule.softcap is not None:
        scores = torch.tanh(scores / rule.softcap) * rule.softcap
    if mask is None:
        mask = torch.full((rows, rows), -torch.inf, dtype=scores.dtype, device=scores.device).triu(1)
    scores = scores + mask
    if rule.sinks is not None:  # a learned score that takes weight and gives no value
        column = rule.sinks.to(scores.dtype).view(heads, 1, 1).expand(heads, rows, 1)
        weights = torch.cat([scores, column], dim=-1).softmax(-1, dtype=torch.float32)[..., :-1]
    else:
        weights = scores.softmax(-1, dtype=torch.float32)
    mixed: Tensor = weights.to(values.dtype).view(*query.shape[:2], rows, -1) @ values
    return mixed.flatten(0, 1)


# ---------------------------------------------------------------------------------- from blocks to calls


def _lower(block: Block, batch: Batch, window: int | None, like: Tensor) -> Iterator[_Call]:
    """The products of one block under a sliding window (None: none that matters)."""
    chain = len(block.parts) == 1
    depth, num_rows = int(batch.positions[block.start]), block.stop - block.start
    if chain and window is None and depth <= num_rows:  # as where texts share no more than their first token
        runs = (*block.anchor, Keys(None, block.start, block.stop, depth))
        yield _Call(block.start, block.stop, runs, None, depth)
        return
    num_keys = depth + num_rows
    step = min(CHUNK_ROWS, max(32, MASK_SIZE // num_keys)) if chain else block.stop - block.start
    for start in range(block.start, block.stop, step):
        stop = min(block.stop, start + step)
        lowest = int(batch.positions[start:stop].min())
        seen = [_trim(run, lowest, window) for run in block.anchor]
        own = Keys(None, block.start, stop, depth)
        seen.append(_trim(own, lowest, window) if chain else own)
        runs = tuple(run for run in seen if run.stop > run.start)
        make = partial(_make_mask, block, batch.positions, (start, stop), runs, window)
        yield _Call(start, stop, runs, partial(_as_tensor, make, like))


def _make_mask(
    block: Block, positions: Ints, rows: tuple[int, int], runs: tuple[Keys, ...], window: int | None
) -> npt.NDArray[np.bool_]:
    """[rows, keys]: what each row sees of the runs, the last of which are the block's own rows."""
    where = positions[slice(*rows)][:, None]
    own = runs[-1]
    anchored = [np.arange(run.depth, run.depth + run.stop - run.start) for run in runs[:-1]]
    depths = np.concatenate([*anchored, positions[own.start : own.stop]])[None]
    if len(block.parts) == 1:
        seen = depths <= where
    else:
        seen = np.ones((where.shape[0], depths.shape[1]), dtype=np.bool_)
        seen[:, depths.shape[1] - where.shape[0] :] = block.mask()
    return seen if window is None else seen & (depths > where - window)


def _as_tensor(make: Callable[[], npt.NDArray[np.bool_]], like: Tensor) -> Tensor:
    """A mask as numbers to add to scores."""
    seen = torch.from_numpy(make())
    return torch.zeros(seen.shape, dtype=like.dtype).masked_fill_(~seen, -torch.inf).to(like.device)


def _trim(run: Keys, lowest: int, window: int | None) -> Keys:
    """Leave out keys that even the row at the lowest position no longer sees."""
    if window is None:
        return run
    skip = min(max(0, lowest - window + 1 - run.depth), run.stop - run.start)
    return Keys(run.piece, run.start + skip, run.stop, run.depth + skip)


# ----------------------------------------------------------------------------- what transformers calls

_ACTIVE: ContextVar[Pass | None] = ContextVar("lydite_pass", default=None)


def _attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """The attention function; arguments and result are as transformers defines them."""
    active = _ACTIVE.get()
    if active is None:
        raise Unsupported(f"{NAME} was called outside of a packed batch")
    asked = {name: given for name, given in options.items() if given is not None and name not in _HARMLESS}
    unknown = sorted(set(asked) - {"scaling", "dropout", "is_causal", "sliding_window", "softcap", "s_aux"})
    if unknown:
        raise Unsupported(f"attention asks for {', '.join(unknown)}")
    if asked.get("dropout", 0.0) or not asked.get("is_causal", True):
        raise Unsupported("attention asks for dropout or for sight of the future")
    if query.shape[0] != 1 or query.shape[2] != key.shape[2] or query.shape[1] % key.shape[1]:
        raise Unsupported(f"attention over shapes {tuple(query.shape)} and {tuple(key.shape)}")
    window = None if attention_mask is None else int(attention_mask)
    if asked.get("sliding_window", window) != window:
        raise Unsupported(f"a layer's window is {asked['sliding_window']}, but its mask's is {window}")
    rule = Rule(asked.get("scaling"), window, asked.get("softcap"), asked.get("s_aux"))
    return active.attend(query, key, value, rule), None


def _mask(
    *,
    config: PretrainedConfig,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_bidirectional_skip: bool = False,
    use_vmap: bool = False,
    **layout: Any,
) -> Tensor | None:
    """The mask function: no mask; a layer with a sliding window gets its width as a tensor of one number."""
    if attention_mask is not None or use_vmap or allow_is_bidirectional_skip:
        raise Unsupported("the model changes the causal mask")
    if local_size is not None and config.to_dict().get("attention_chunk_size") == local_size:
        raise Unsupported("the model attends in chunks")  # they look like windows here
    return None if local_size is None else torch.full((1, 1, 1, 1), local_size, dtype=torch.int64)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)


@contextmanager
def attached(model: PreTrainedModel) -> Iterator[None]:
    """Inside, `model` calls our attention; afterwards it has its own back."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def active(one: Pass) -> Iterator[None]:
    """Inside, an attached model attends as `one` says."""
    token = _ACTIVE.set(one)
    try:
        yield
    finally:
        _ACTIVE.reset(token)
