"""Averages of weights over a run: less noise than the last ones alone.

`ema`: after update t each average moves towards its weight by 1 - min(decay, (1 + t) / (10 + t)), so that the start is
soon forgotten (TensorFlow's rule). `last`: the mean over the last checkpoints (Vaswani et al. 2017), taken from their
files when the run ends.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from lydite.training.checkpoints import read_part
from lydite.training.optimizers import Weights


class MovingAverage:
    """The float32 averages of all weights, by name."""

    def __init__(self, weights: Weights, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: weight.detach().clone() for name, weight in weights.named.items()}

    @torch.no_grad()
    def update(self, weights: Weights, step: int) -> None:
        """After update `step` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.tensors.values()), [weights.named[name] for name in self.tensors], 1 - decay)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(tensors[name])


@contextmanager
def used(weights: Weights, average: MovingAverage | None) -> Iterator[None]:
    """While entered, the module computes with the averages."""
    if average is None:
        yield
        return
    own = list(weights.own.values())
    with torch.no_grad():
        kept = [weight.detach().clone() for weight in own]
        _copy(own, list(average.tensors.values()))
    try:
        yield
    finally:
        with torch.no_grad():
            _copy(own, kept)


def _copy(into: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """One by one: shards (DTensor) have no fused copy."""
    for tensor, value in zip(into, values, strict=True):
        tensor.copy_(value)


def mean_of(checkpoints: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of their weights, one checkpoint at a time in memory."""
    total: dict[str, Tensor] = {}
    for path in checkpoints:
        tensors = read_part(path, "model")
        assert tensors is not None, path
        for name, tensor in tensors.items():
            total[name] = tensor / len(checkpoints) + total.get(name, torch.zeros(()))
    return total
