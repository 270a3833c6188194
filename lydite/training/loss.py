"""Cross-entropy over a vocabulary, from the states that the output embedding multiplies, without a matrix of logits.

The logits of a batch are often its largest tensor (4,096 positions over 16,384 tokens: 256 MiB), and plain autograd holds
them three times. Here a chunk of rows at a time is multiplied, turned into its loss and, in place, into the gradient of
its logits, from which the gradients of states and weight follow at once; `backward` only scales what is there.

Contract: the sum of nats, float32, over rows that are all labelled (whoever calls has picked them), equal to
`torch.nn.functional.cross_entropy(reduction="sum")` in value and gradient. The log-sum-exp and the sums over rows are
float32 whatever the weights are. Products run in the dtype of the states, or in that of autocast.
torch 2.13 has a `linear_cross_entropy` of this kind, without label smoothing; we take PyTorch from 2.9 on.

Rows of states beyond the labels are filling: they add nothing and get no gradient.

Shapes: N labelled positions, P states, D width of states, V vocabulary, C rows of a chunk, R rows of a block.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

CHUNK_ROWS = 512
"""Rows of one matrix product: enough that adding to the gradient of the weight costs little beside it (with 1,024, 2,048 and
4,096 the whole loss takes as long, to within 3%)."""
BLOCK_BYTES = 2**20
"""Float32 logits that are turned into a gradient at a time, so that they stay in a core's cache."""


def vocab_loss(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    chunk_rows: int = CHUNK_ROWS,
) -> Tensor:
    """Sum of nats over N positions, float32: states [P, D], weight [V, D], bias [V] or None, labels [N] in 0..V-1,
    N <= P.

    `label_smoothing` mixes so much of the uniform distribution into each label (Szegedy et al. 2016).
    """
    assert states.dim() == 2, states.shape
    assert labels.dim() == 1, labels.shape
    assert len(labels) <= len(states), labels.shape
    if torch.is_autocast_enabled(states.device.type):
        # Casts are differentiable, so each gradient arrives in the dtype of its own tensor.
        dtype = torch.get_autocast_dtype(states.device.type)
        states, weight = states.to(dtype), weight.to(dtype)
    loss: Tensor = _VocabLoss.apply(states, weight, bias, labels, label_smoothing, chunk_rows)  # type: ignore[no-untyped-call]
    return loss


class _VocabLoss(torch.autograd.Function):
    """Forward computes the loss and, where they are wanted, all gradients; backward multiplies them by its scalar."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        smoothing: float,
        chunk_rows: int,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[:3]
        with torch.autocast(states.device.type, enabled=False):
            total, grads = _run(states, weight, bias, labels, smoothing, chunk_rows, wanted)
        ctx.save_for_backward(*(grad for grad in grads if grad is not None))
        ctx.have = [grad is not None for grad in grads]
        ctx.dtypes = [tensor.dtype if tensor is not None else None for tensor in (states, weight, bias)]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        grads = [
            (next(saved) * scale).to(dtype) if have else None for have, dtype in zip(ctx.have, ctx.dtypes, strict=True)
        ]
        return *grads, None, None, None


def _run(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    smoothing: float,
    chunk_rows: int,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None, Tensor | None]]:
    """The loss and the gradients of states [P, D], weight [V, D] (float32) and bias [V] (float32), where wanted."""
    total = states.new_zeros((), dtype=torch.float32)
    for_states = torch.empty_like(states) if wanted[0] else None
    for_weight = torch.zeros_like(weight, dtype=torch.float32) if wanted[1] else None
    for_bias = torch.zeros_like(bias, dtype=torch.float32) if wanted[2] and bias is not None else None
    fitting = None if bias is None else bias.to(states.dtype)
    for start in range(0, len(states), chunk_rows):
        rows = slice(start, start + chunk_rows)
        logits_CV = linear(states[rows], weight, fitting)
        chosen = labels[rows]
        total += _to_gradient(logits_CV[: len(chosen)], chosen, smoothing, any(wanted))
        logits_CV[len(chosen) :] = 0
        if for_states is not None:
            torch.mm(logits_CV, weight, out=for_states[rows])
        if for_weight is not None:
            if weight.dtype == torch.float32:
                for_weight.addmm_(logits_CV.T, states[rows])
            else:
                for_weight += logits_CV.T @ states[rows]
        if for_bias is not None:
            for_bias += logits_CV.sum(0, dtype=torch.float32)
    return total, (for_states, for_weight, for_bias)


def _to_gradient(logits_CV: Tensor, labels_C: Tensor, smoothing: float, wanted: bool) -> Tensor:
    """The loss of a chunk; where its gradient is wanted, that of the logits is written over them.

    d loss / d logits = softmax - (1 - smoothing) * onehot - smoothing / V.
    """
    size = logits_CV.shape[1]
    block = max(1, BLOCK_BYTES // (4 * size)) if logits_CV.device.type == "cpu" else len(logits_CV)
    total = logits_CV.new_zeros((), dtype=torch.float32)
    for logits_RV, labels_R in zip(torch.split(logits_CV, block), torch.split(labels_C[:, None], block), strict=True):
        logits = logits_RV.float()  # itself where it is float32 already
        picked_R1 = logits.gather(1, labels_R)
        mean_R1 = logits.mean(1, keepdim=True) if smoothing else picked_R1
        if wanted:  # the exponentials are computed once, for the sum and for the softmax
            top_R1 = logits.amax(1, keepdim=True)
            sum_R1 = logits.sub_(top_R1).exp_().sum(1, keepdim=True)
            lse_R1 = top_R1 + sum_R1.log()
            logits.div_(sum_R1)
            logits.scatter_add_(1, labels_R, torch.full_like(picked_R1, smoothing - 1))
            if smoothing:
                logits.sub_(smoothing / size)
            if logits is not logits_RV:
                logits_RV.copy_(logits)
        else:
            lse_R1 = torch.logsumexp(logits, 1, keepdim=True)
        total += (lse_R1 - picked_R1).sum()
        if smoothing:  # (1 - s) (lse - picked) + s (lse - mean of the logits)
            total += smoothing * (picked_R1 - mean_R1).sum()
    return total
