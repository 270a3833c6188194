"""What a Scorer tries on a model before it trusts the packed path: a small tree, and how near is near enough.

Contract: a wrong mask, position, window or soft cap anywhere in a model must show in the probe.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lydite.engine.budget import available_bytes
from lydite.engine.memory import Stretch
from lydite.engine.tokens import Window


def probe_windows(config: dict[str, Any]) -> list[Window]:
    """A tree of random tokens with branches at several depths, longer than small sliding windows.

    Only the last two tokens of each sequence are scored: an error further left shows in them too.
    """
    longest = min(config.get("max_position_embeddings") or 18, 18)
    if (config.get("sliding_window") or 1024) <= 64:
        longest = min(config.get("max_position_embeddings") or 96, 96)
    a, b, c, d = np.random.default_rng(0).integers(0, config["vocab_size"], (4, longest)).tolist()
    half, third = longest // 2, longest // 3
    rows = [a, a[:half] + b[half:], a[:half] + b[half:-1] + c[-1:], a[:third] + c[third:], d[: half + 1]]
    rows += [d[:third] + b[:2], a[:-3] + d[:3], a[:-3] + d[:1] + c[:2], a[:-2] + d[:3]]
    return [Window(np.asarray(ids, dtype=np.int32), len(ids) - 2) for ids in rows]


def close(ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> bool:
    """Whether two ways to the same log-probabilities agree up to the rounding of the dtype; both must be finite alike."""
    finite = torch.isfinite(ours)
    if not torch.equal(finite, torch.isfinite(theirs)):
        return False
    difference = (ours - theirs)[finite].abs()
    if not len(difference):
        return True
    if dtype in (torch.float32, torch.float64):
        return bool(difference.max() < 1e-3)
    return bool(difference.mean() < 0.15)


_STRETCH = 4096
"""Outputs of a linear layer whose weights are float32 at one time."""


@contextmanager
def in_float32(model: PreTrainedModel, *, stretches: bool = True) -> Iterator[torch.dtype]:
    """Inside, half-precision weights count as float32, where a wrong mask cannot hide in rounding (in bfloat16 two plain
    batches already differ by 0.1 nats a token). Embeddings and linear layers, nearly all of a model, are turned stretch by
    stretch as they are used, so that memory hardly grows; the rest is converted and converted back, which is exact.
    Without `stretches` all of it is, for networks that read the weights of their layers themselves (Mamba).

    Yields the dtype of what is computed, for `close`; `model.dtype` is still that of the embeddings."""
    low = (torch.bfloat16, torch.float16)
    whole = [
        module
        for module in model.modules()
        if stretches and type(module) is nn.Linear and module.weight.dtype in low and "forward" not in vars(module)
    ]
    looked_up = [m for m in model.modules() if stretches and isinstance(m, nn.Embedding) and m.weight.dtype in low]
    lazy = {id(m.weight) for m in (*whole, *looked_up)}
    rest = [t for t in (*model.parameters(), *model.buffers()) if t.dtype in low and id(t) not in lazy]
    if 4 * sum(t.numel() for t in rest) > available_bytes(str(model.device)) // 2:
        yield model.dtype  # would not fit: the probe is looser
        return
    dtypes = [t.dtype for t in rest]
    for tensor in rest:
        tensor.data = tensor.data.float()
    for module in whole:
        vars(module)["forward"] = partial(_product, module)
    hooks = [module.register_forward_hook(lambda _module, _given, out: out.float()) for module in looked_up]
    try:
        yield torch.float32 if model.dtype in low else model.dtype
    finally:
        for hook in hooks:
            hook.remove()
        for module in whole:
            del vars(module)["forward"]
        for tensor, dtype in zip(rest, dtypes, strict=True):
            tensor.data = tensor.data.to(dtype)


def _product(layer: nn.Linear, rows: Tensor) -> Tensor:
    """What the layer gives, in float32."""
    stretch, rows = Stretch(layer.weight, torch.float32), rows.float()
    starts = range(0, layer.out_features, _STRETCH)
    parts = [nn.functional.linear(rows, stretch.rows(at, at + _STRETCH)) for at in starts]
    out = torch.cat(parts, dim=-1)
    return out if layer.bias is None else out + layer.bias.float()


def depends_on_neighbours(config: dict[str, Any]) -> bool:
    """Rotary embeddings that stretch with the longest sequence of a batch: such sequences must be alone."""
    rope = config.get("rope_parameters") or {}
    kinds = {rope.get("rope_type")} | {part.get("rope_type") for part in rope.values() if isinstance(part, dict)}
    return bool(kinds & {"dynamic", "longrope"})
