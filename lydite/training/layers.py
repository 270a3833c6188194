"""Layers of a network that cost less on a CPU, put in the place of their like before training.

Dropout (Srivastava et al. 2014): PyTorch draws a float for every number that may be dropped. Here each takes 16 bits of the
integers that the same generator draws: a fifth of the time, and a sixth of a step where dropout is high and layers are
narrow. Numbers are dropped with the nearest multiple of 1/65536 to p, and what stays is scaled by exactly that share.
GELU by its tanh approximation (GPT-2's): transformers writes it out in eight operations, PyTorch has it in one.

Contract: dropout is a function of torch's generator, as `torch.nn.Dropout` is, so that runs resume and checkpointed
activations are computed again with the same numbers; the numbers themselves are others than torch's. All else is equal
within rounding. What is saved does not change: none of these layers has weights.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.activations import NewGELUActivation

LEVELS = 2**16


class QuickDropout(nn.Dropout):
    """torch.nn.Dropout, drawn from 16 bits."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        if self.p == 1 or input.device.type != "cpu":
            return super().forward(input)
        out: Tensor = _Drop.apply(input, self.p)  # type: ignore[no-untyped-call]
        return out


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, p: float) -> Tensor:
        dropped = min(round(p * LEVELS), LEVELS - 1)
        count = values.numel()
        bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:count]
        kept = (bits >= dropped - LEVELS // 2).view(values.shape)
        ctx.save_for_backward(kept)
        ctx.scale = LEVELS / (LEVELS - dropped)
        return (values * kept).mul_(ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        [kept] = ctx.saved_tensors
        return (grad * kept).mul_(ctx.scale), None


def quicken(module: nn.Module) -> None:
    """Changes the layers inside `module` in place."""
    for part in module.modules():
        if type(part) is nn.Dropout:
            part.__class__ = QuickDropout
        elif type(part) is NewGELUActivation:
            part.__class__ = nn.GELU
            part.approximate = "tanh"  # type: ignore[assignment]  # a plain attribute of it
