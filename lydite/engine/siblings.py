"""Layers that read the same rows, multiplied as one: the queries, keys and values of an attention.

On few rows, as in decoding, a small product costs little more than its call, so one product in the place of three runs 1.2 to
1.7 times as fast (docs/benchmarks.md). Models still call three layers: the first that is given some rows computes all, and
the others, given the very same tensor, take their part.

Contract: each layer answers as it would alone, up to rounding, whoever calls it with what: rows that are another tensor are
multiplied anew. Nothing is kept once all have taken their part, and of all groups only the last one that was called keeps any.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lydite.engine.absent import AbsentWeight

NAMES = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"))
_OTHERS = ("cross", "encoder_attn")
"""In the paths of attentions whose keys and values read other rows than the queries."""


@dataclass
class Pending:
    """What the layers of a model that was computed and is not taken yet."""

    owner: object = None
    rows: Tensor | None = None
    outputs: dict[int, Tensor] = field(default_factory=dict)

    def clear(self) -> None:
        self.owner = self.rows = None
        self.outputs = {}


class Group:
    """The layers of one attention, with one weight."""

    def __init__(self, joint: Callable[[Tensor], Tensor], sizes: Sequence[int], pending: Pending) -> None:
        self.joint = joint
        self.sizes = list(sizes)
        self.pending = pending

    def product(self, number: int, rows: Tensor) -> Tensor:
        """rows [..., in] -> [..., outputs of layer `number`]"""
        pending = self.pending
        if pending.owner is not self or pending.rows is not rows or number not in pending.outputs:
            outputs = torch.split(self.joint(rows), self.sizes, dim=-1)
            pending.owner, pending.rows, pending.outputs = self, rows, dict(enumerate(outputs))
        out = pending.outputs.pop(number)
        if not pending.outputs:
            pending.clear()
        return out


class SiblingLinear(nn.Module):
    """One of the layers of a group, in the place of an ordinary linear layer."""

    def __init__(self, linear: nn.Linear, group: Group, number: int, dense: Callable[[], Tensor]) -> None:
        """`dense` gives its weight [out, in] as it was."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = None
        self.group, self.number, self.dense = group, number, dense
        self.weight = AbsentWeight.like((self.out_features, self.in_features), linear.weight.dtype, dense)

    def forward(self, rows: Tensor) -> Tensor:
        return self.group.product(self.number, rows)

    def weight_as_it_was(self) -> Tensor:
        """[out, in]"""
        return self.dense()


def joined(layers: dict[str, nn.Linear]) -> nn.Linear:
    """One layer with all outputs of several, in their order."""
    parts = list(layers.values())
    size, bias = sum(layer.out_features for layer in parts), parts[0].bias is not None
    whole = nn.Linear(parts[0].in_features, size, bias, device="meta")
    whole.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in parts]), requires_grad=False)
    if bias:
        whole.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in parts]), requires_grad=False)
    return whole


def find_groups(layers: dict[str, nn.Linear]) -> Iterator[dict[str, nn.Linear]]:
    """Layers that read the same rows, by name: those of one self-attention, of one input size, all or none with a bias."""
    for name in layers:
        parent, _, last = name.rpartition(".")
        if any(word in parent for word in _OTHERS):
            continue
        for first, *rest in NAMES:
            names = [f"{parent}.{one}" for one in (first, *rest)]
            if last != first or not all(one in layers for one in names):
                continue
            found = {one: layers[one] for one in names}
            alike = {(layer.in_features, layer.bias is None, layer.weight.dtype) for layer in found.values()}
            if len(alike) == 1:
                yield found
