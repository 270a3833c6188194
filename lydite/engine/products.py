"""Attention as matrix products of oneDNN, where that is faster than PyTorch's own kernel for CPUs.

PyTorch's kernel multiplies with the BLAS that it was built with, which on some processors is half as fast as oneDNN or less,
and reads the keys of grouped heads once for each query head. Here all query heads of a group are rows of one product. On
short pieces the calls themselves cost more, so those stay with PyTorch.

Contract: scores and softmax are float32 whatever the model's dtype is, so results are PyTorch's up to rounding; which of the
two is used for large pieces is timed once, on the first of them.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

_LARGE = 1 << 23
"""Query rows of a group x keys x width, from which a piece is large (measured: docs/benchmarks.md)."""
_SCORES = 1 << 21
"""Scores that exist at one time (8 MB): they stay in the processor's cache."""
_ROWS = 256
_ROUNDS = 3


class Products:
    """Decides for the pieces of one model. `allowed=False`: always PyTorch's kernel."""

    def __init__(self, *, allowed: bool = False) -> None:
        self.allowed = allowed and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        self.gain: float | None = None
        """How many times as fast as PyTorch's kernel the products were; None: not timed yet."""

    def take(self, query: Tensor, keys: Tensor) -> bool:
        """Whether a piece, query [H, T, D] and keys [H/G, K, D], is one for products."""
        if not self.allowed or (self.gain is not None and self.gain <= 1):
            return False
        if query.device.type != "cpu" or query.dtype == torch.float64:
            return False
        return query.shape[0] // keys.shape[0] * query.shape[1] * keys.shape[1] * keys.shape[2] >= _LARGE

    def faster(self, ours: Callable[[], Tensor], theirs: Callable[[], Tensor]) -> Tensor:
        """The result of the way that is faster; both are timed the first time, in turns."""
        if self.gain is None:
            best = [float("inf")] * 2
            for _ in range(_ROUNDS):
                for side, way in enumerate((ours, theirs)):
                    start = time.perf_counter()
                    way()
                    best[side] = min(best[side], time.perf_counter() - start)
            self.gain = best[1] / best[0]
        return ours() if self.gain > 1 else theirs()


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, lead: int, scale: float | None) -> Tensor:
    """query [H, T, D], keys and values [H/G, K, D], mask [T, K] to add, or None: row t sees the first lead + t + 1 keys.
    -> [H, T, D of value]"""
    heads, rows, width = query.shape
    groups, num_keys, _ = keys.shape
    per_group = heads // groups
    out = query.new_empty(heads, rows, values.shape[2])
    query = query.float() * (width**-0.5 if scale is None else scale)
    keys, values = keys.float(), values.float().transpose(1, 2)
    step = min(_ROWS, max(16, _SCORES // (per_group * num_keys)))
    for group in range(groups):
        mine = slice(group * per_group, (group + 1) * per_group)
        key, value = keys[group].contiguous(), values[group].contiguous()
        for start in range(0, rows, step):
            stop = min(rows, start + step)
            seen = num_keys if mask is not None else lead + stop
            scores = _product(query[mine, start:stop].reshape(-1, width), key[:seen])
            shaped = scores.view(per_group, stop - start, seen)
            if mask is not None:
                shaped.add_(mask[start:stop])
            else:
                future = torch.ones(stop - start, stop - start, dtype=torch.bool).triu(1)
                shaped[:, :, lead + start :].masked_fill_(future, -torch.inf)
            mixed = _product(scores.softmax(dim=-1), value[:, :seen].contiguous())
            out[mine, start:stop] = mixed.view(per_group, stop - start, -1).to(out.dtype)
    return out


def _product(rows: Tensor, weight: Tensor) -> Tensor:
    """rows [N, D], weight [K, D] -> [N, K]."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")
    return out
