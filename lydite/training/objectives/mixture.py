"""Several objectives, over the same or different documents, at once.

Examples are dealt out by weight, evenly: in every stretch of a batch's length each member has its share, to within one
example. Member m gives its own examples in its own order, through as many epochs as it takes; a small corpus with a large weight
comes round more often. A batch may hold several members; each has its own forward pass.

The loss is the mean over all labelled positions of all members ("tokens" with "tokens", "pair" with "pair" ...), so an example
counts by how much is predicted in it; parts are reported by member.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from lydite.errors import UserError
from lydite.training.batch import Example, Ints, Loss, Part, TrainBatch
from lydite.training.objectives.base import Objective

SLOTS = 1000
"""Weights are rounded to one part in so many."""


class Mixture:
    """Objectives by name, and their weights (any positive numbers)."""

    rows: int | None = None

    def __init__(self, members: Mapping[str, Objective], weights: Mapping[str, float]) -> None:
        if set(members) != set(weights) or not members:
            raise UserError(f"a mixture needs a weight for each of its members: {', '.join(sorted(members)) or 'none'}")
        if any(objective.rows is not None for objective in members.values()):
            raise UserError("carried streams cannot be a member of a mixture; take another layout")
        if not all(0 < weight < float("inf") for weight in weights.values()):
            raise UserError("weights of a mixture must be above 0")
        self.names, self.members = tuple(members), tuple(members.values())
        self._slots = _deal([weights[name] for name in self.names])
        self._before = [np.concatenate([[0], np.cumsum(self._slots == m)]) for m in range(len(self.names))]
        missing = [name for name, before in zip(self.names, self._before, strict=True) if not before[-1]]
        if missing:
            raise UserError(f"the weight of {missing[0]} is less than 1/{SLOTS} of all; raise it or leave it out")
        self._ends: list[list[int]] = [[0] for _ in self.names]

    def num_examples(self, epoch: int) -> int:
        """As many as the members have in their first epochs together, in every epoch."""
        return sum(member.num_examples(0) for member in self.members)

    def example(self, epoch: int, index: int) -> Example:
        block, slot = divmod(epoch * self.num_examples(0) + index, SLOTS)
        number = int(self._slots[slot])
        before = self._before[number]
        example = self.members[number].example(*self._own(number, block * int(before[-1]) + int(before[slot])))
        return replace(example, member=number)

    def _own(self, number: int, count: int) -> tuple[int, int]:
        """The member's own epoch and index, after it has given `count` examples."""
        ends = self._ends[number]
        while ends[-1] <= count:
            ends.append(ends[-1] + self.members[number].num_examples(len(ends) - 1))
        epoch = int(np.searchsorted(ends, count, side="right")) - 1
        return epoch, count - ends[epoch]

    def collate(self, examples: Sequence[Example]) -> TrainBatch:
        batches = {}
        for number, member in enumerate(self.members):
            own = [example for example in examples if example.member == number]
            if own:
                batches[number] = member.collate(own)
        counts: dict[str, int] = {}
        for batch in batches.values():
            for pool, count in batch.counts.items():
                counts[pool] = counts.get(pool, 0) + count
        return TrainBatch({}, {}, sum(batch.num_tokens for batch in batches.values()), counts, batches)

    def loss(self, network: nn.Module, batch: TrainBatch) -> Loss:
        parts = {}
        for number, own in batch.members.items():
            for name, part in self.members[number].loss(network, own).parts.items():
                parts[f"{self.names[number]}.{name}"] = Part(part.sum, part.count, part.weight, part.pool or name)
        return Loss(parts)

    def wrap(self, network: nn.Module) -> nn.Module:
        """Raises UserError where a member trains more than the network: the others would not know what to do with it."""
        wrapped = [member.wrap(network) for member in self.members]
        if any(module is not network for module in wrapped):
            raise UserError("replaced-token detection cannot be a member of a mixture")
        return network

    def carried(self) -> dict[str, Tensor]:
        return {}

    def carry(self, kept: dict[str, Tensor]) -> None:
        assert not kept


def _deal(weights: Sequence[float]) -> Ints:
    """The member of each slot, int64 [SLOTS]: shares by largest remainder, each member's slots evenly spread."""
    exact = np.array(weights) / sum(weights) * SLOTS
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: SLOTS - int(counts.sum())]] += 1
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts if count])
    return np.repeat(np.arange(len(counts)), counts)[np.argsort(places, kind="stable")]
