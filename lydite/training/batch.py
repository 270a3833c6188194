"""What passes between objectives and the training loop: examples, batches, and losses that add up exactly.

An objective turns documents into `Example`s, `collate` turns those into a `TrainBatch`, and its `loss` gives a `Loss`: sums and
counts, never means. Over micro-batches and processes of any size the loss of a step is therefore exact: the sum of the
sums over the sum of the counts, pool by pool. The counts of a batch are known before the network has run
(`TrainBatch.counts`), so the loop adds them up over the whole step first and each backward pass is already in scale.

Shapes: B rows, L positions.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ints = npt.NDArray[np.int64]
IGNORE = -100
"""The label of positions that carry no loss."""
MULTIPLE = 8
"""Rows are padded to a multiple of so many positions, which matrix products like."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a batch to be: arrays by name that the objective's own `collate` understands."""

    fields: dict[str, npt.NDArray[Any]]
    length: int
    """Positions that it takes in a batch, before padding; for batches by length or by number of tokens."""
    member: int = 0
    """Which objective of a mixture it belongs to."""


@dataclass(frozen=True, slots=True)
class TrainBatch:
    """Tensors for one forward pass."""

    inputs: dict[str, Tensor]
    """The network's keyword arguments, never labels."""
    targets: dict[str, Tensor]
    """What the loss compares with: "tokens" int64 with IGNORE, "pair", "replaced" ..."""
    num_tokens: int
    """Real positions, without padding; encoder and decoder together."""
    counts: dict[str, int]
    """By pool, how many labelled positions (or pairs) the loss will be summed over."""
    members: dict[int, "TrainBatch"] = field(default_factory=dict)
    """A mixture's batch: one batch for each of its objectives that has examples here, and no tensors of its own."""

    def to(self, device: torch.device | str) -> "TrainBatch":
        """The same batch on another device."""
        return replace(
            self,
            inputs={name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()},
            targets={name: tensor.to(device, non_blocking=True) for name, tensor in self.targets.items()},
            members={number: batch.to(device) for number, batch in self.members.items()},
        )


@dataclass(frozen=True, slots=True)
class Part:
    """One term of a loss."""

    sum: Tensor
    """Sum in nats, float32, with its gradient."""
    count: int
    """Over how many labelled positions or pairs."""
    weight: float = 1.0
    """Factor on its mean in the total."""
    pool: str = ""
    """Parts of one pool share their count: the total takes the mean over all of them together. Empty: its own name."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Sums and counts by name; add up those of a step, then divide."""

    parts: dict[str, Part]

    def total(self, counts: Mapping[str, int] | None = None) -> Tensor:
        """Weighted sum of the means; `counts`: by pool, those of the whole step (None: this batch alone is the step)."""
        counts = counts if counts is not None else pool_counts([self])
        terms = [
            part.sum * (part.weight / counts[part.pool or name])
            for name, part in self.parts.items()
            if counts[part.pool or name]
        ]
        if not terms:
            return torch.stack([part.sum for part in self.parts.values()]).sum()  # nothing is labelled: zero
        return torch.stack(terms).sum()

    def means(self) -> dict[str, float]:
        """Nats per labelled position, by part, of this batch alone; parts without labels are left out."""
        return {name: float(part.sum.detach()) / part.count for name, part in self.parts.items() if part.count}


def pool_counts(losses: Iterable[Loss]) -> dict[str, int]:
    """Labelled positions by pool, over all the losses."""
    counts: dict[str, int] = {}
    for loss in losses:
        for name, part in loss.parts.items():
            counts[part.pool or name] = counts.get(part.pool or name, 0) + part.count
    return counts


def padded_length(longest: int, limit: int | None = None) -> int:
    """`longest` raised to the multiple of 8, but not above `limit` (the longest row that the network takes)."""
    raised = -(-longest // MULTIPLE) * MULTIPLE
    return raised if limit is None else max(longest, min(raised, limit))


def pad(rows: Sequence[npt.NDArray[Any]], fill: int, limit: int | None = None) -> Tensor:
    """Rows of numbers, [n] each -> int64 [B, L], filled up on the right."""
    out = np.full((len(rows), padded_length(max(map(len, rows)), limit)), fill, dtype=np.int64)
    for row, numbers in zip(out, rows, strict=True):
        row[: len(numbers)] = numbers
    return torch.from_numpy(out)


def real_positions(rows: Sequence[npt.NDArray[Any]], width: int) -> Tensor | None:
    """The attention mask int64 [B, width] of padded rows: 1 where a row has a token; None where nothing is padded."""
    lengths = np.array([len(row) for row in rows])
    if (lengths == width).all():
        return None
    return torch.from_numpy((np.arange(width) < lengths[:, None]).astype(np.int64))
