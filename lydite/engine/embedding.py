"""A float32 embedding in half of the memory, where bfloat16 or float16 hold its table exactly, as most checkpoints were stored.

Contract: every number that comes out is the one that came out before, bit for bit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lydite.engine.absent import AbsentWeight

_STRETCH = 4096
"""Rows that are compared at one time."""


class HalfEmbedding(nn.Module):
    """Looks rows up in the smaller table and leaves all else (Gemma scales them) to the embedding that it stands for."""

    def __init__(self, embedding: nn.Embedding, table: Tensor) -> None:
        super().__init__()
        self.table = table
        self.embedding = embedding
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim
        self.dtype = embedding.weight.dtype
        self.weight = AbsentWeight.like(table.shape, self.dtype, table.float)

    def forward(self, ids: Tensor) -> Tensor:
        """ids [...] -> [..., D] in float32"""
        distinct, where = torch.unique(ids, return_inverse=True)
        rows = self.table[distinct].to(self.dtype)
        out: Tensor = torch.func.functional_call(self.embedding, {"weight": rows}, (where,))
        return out


@dataclass
class Halved:
    """What became of a model's embedding."""

    table: Tensor
    """[V, D] in half precision"""
    tied: bool
    """Whether it was the output head's weight too, which now is empty: it is to be laid out from the table."""
    undo: Callable[[], None]


def halve_embedding(model: PreTrainedModel, head: nn.Module | None) -> Halved | None:
    """Halve the memory of the input embedding. None where that would lose something, or where more than it and the output
    head use its weight."""
    embedding = model.get_input_embeddings()
    if not isinstance(embedding, nn.Embedding) or embedding.max_norm is not None or embedding._forward_hooks:
        return None
    if isinstance(head, nn.Linear) and head.out_features != embedding.num_embeddings:
        return None  # it makes no logits: the model makes them with its embedding (DeBERTa's newer head)
    weight = embedding.weight
    names = [name for name, module in model.named_modules(remove_duplicate=False) if module is embedding]
    users = [m for m in model.modules() for own in m._parameters.values() if own is not None and _same(own, weight)]
    table = None if len(names) != 1 or any(user not in (embedding, head) for user in users) else _half(weight.detach())
    if table is None:
        return None
    padding, needs_grad = embedding.padding_idx, weight.requires_grad
    model.set_submodule(names[0], HalfEmbedding(embedding, table))
    embedding.padding_idx = None  # it is for gradients only, and may lie beyond the rows that are looked up
    for user in users:
        user.weight = nn.Parameter(torch.empty(0, dtype=weight.dtype), requires_grad=False)

    def undo() -> None:
        whole = nn.Parameter(table.float(), requires_grad=needs_grad)
        for user in users:
            user.weight = whole
        embedding.padding_idx = padding
        model.set_submodule(names[0], embedding)

    return Halved(table, len(users) > 1, undo)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.numel() > 0 and one.data_ptr() == other.data_ptr()


def _half(weight: Tensor) -> Tensor | None:
    """The float32 weight on a CPU in a half precision that holds it exactly; None where there is none."""
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        return None
    for dtype in (torch.bfloat16, torch.float16):
        table = torch.empty(weight.shape, dtype=dtype)
        for start in range(0, len(weight), _STRETCH):
            rows = weight[start : start + _STRETCH]
            if not torch.equal(table[start : start + _STRETCH].copy_(rows).float(), rows):
                break
        else:
            return table
    return None
