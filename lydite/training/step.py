"""One forward pass of an objective as a module, the sums that losses are made of, and the loss of a validation split."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lydite.errors import ModelError
from lydite.training.batch import TrainBatch
from lydite.training.distributed import World
from lydite.training.feed import share
from lydite.training.objectives import Objective
from lydite.training.objectives.forward import inner


class Step(nn.Module):
    """The objective's loss as a module's forward, so that wrappers see all of it."""

    def __init__(self, module: nn.Module, autocast: bool, device: torch.device) -> None:
        super().__init__()
        self.module, self.autocast, self.device = module, autocast, device

    def forward(
        self, objective: Objective, batch: TrainBatch, counts: dict[str, int] | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The part of the step's loss that is this batch's, and sums by name."""
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                loss = objective.loss(self.module, batch)
        except (RuntimeError, IndexError) as error:
            raise self._explained(error, batch) from error
        sums = {name: part.sum.detach() for name, part in loss.parts.items()}
        self.shape = {name: (part.count, part.weight, part.pool or name) for name, part in loss.parts.items()}
        return loss.total(counts), sums

    def _explained(self, error: RuntimeError | IndexError, batch: TrainBatch) -> Exception:
        """In a line, where rows are longer than the network takes, or it makes some of its numbers in float32, whatever its
        weights are (XLNet's positions)."""
        longest = max(_lengths(batch), default=0)
        network: Any = inner(self.module)
        config = network.config.get_text_config()
        most = getattr(config, "max_position_embeddings", None)
        before = before_first(network)
        if isinstance(most, int) and 0 < most < longest + before and "memory" not in str(error):
            key = type(config).attribute_map.get("max_position_embeddings", "max_position_embeddings")
            less = f" less the {before} that are never used" if before else ""
            return ModelError(
                f"rows of {longest} positions are longer than the network's {key} = {most}{less}; shorten the objective's "
                f"context, or set model.config.{key}"
            )
        halves = any(weight.dtype == torch.bfloat16 for weight in self.module.parameters())
        if not halves or "dtype" not in str(error):
            return error
        line = (str(error).strip().splitlines() or [""])[0]
        name = type(inner(self.module)).__name__
        return ModelError(f"{name} does not compute in bfloat16 ({line}); set training.dtype = autocast")


def before_first(network: nn.Module) -> int:
    """Positions before that of a row's first token: RoBERTa counts from behind its padding token's id."""
    tables = [part for name, part in network.named_modules() if name.endswith("position_embeddings")]
    ids = [table.padding_idx for table in tables if isinstance(table, nn.Embedding) and table.padding_idx is not None]
    return max(ids, default=-1) + 1


def _lengths(batch: TrainBatch) -> Iterator[int]:
    """Positions of its rows, on each side; a mixture's too."""
    yield from (ids.shape[1] for name, ids in batch.inputs.items() if name.endswith("input_ids"))
    for member in batch.members.values():
        yield from _lengths(member)


@dataclass
class Sums:
    """A loss over batches and processes: sums and counts by part."""

    parts: dict[str, list[Any]] = field(default_factory=dict)
    """[sum in nats, count, weight]."""
    pools: dict[str, str] = field(default_factory=dict)

    def add(self, sums: dict[str, Tensor], shape: dict[str, tuple[int, float, str]]) -> None:
        for name, (count, weight, pool) in shape.items():
            entry = self.parts.setdefault(name, [0.0, 0, weight])
            entry[0], entry[1] = entry[0] + sums[name], entry[1] + count  # on the device; read once a step
            self.pools[name] = pool

    def over(self, world: World) -> "Sums":
        """Those of all processes together."""
        out = Sums()
        own = {name: [float(total), count, weight] for name, (total, count, weight) in self.parts.items()}
        for message in world.gather({"parts": own, "pools": self.pools}):
            out.pools |= message["pools"]
            for name, (total, count, weight) in message["parts"].items():
                entry = out.parts.setdefault(name, [0.0, 0, weight])
                entry[0], entry[1] = entry[0] + total, entry[1] + count
        return out

    def means(self) -> dict[str, float]:
        return {name: total / count for name, (total, count, _) in self.parts.items() if count}

    def loss(self) -> float:
        """Weighted sum of the means over pools, as batch.Loss.total has it."""
        counts: dict[str, float] = {}
        for name, (_, count, _) in self.parts.items():
            counts[self.pools[name]] = counts.get(self.pools[name], 0) + count
        return sum(
            float(weight * total / counts[self.pools[name]])
            for name, (total, _, weight) in self.parts.items()
            if counts[self.pools[name]]
        )


@torch.no_grad()
def validation_loss(step: Step, objective: Objective, world: World, *, rows: int, count: int) -> Sums:
    """The sums over the first `count` rows of `objective`, `rows` of them at a time over all processes."""
    sums = Sums()
    step.module.eval()
    try:
        for start in range(0, count, rows):
            keys = list(range(start, min(start + rows, count)))
            mine = share(keys, world.rank, world.size)
            # With none of its own a process still takes part where shards are gathered, and counts nothing.
            examples = [objective.example(0, key) for key in mine or keys[:1]]
            _, parts = step(objective, objective.collate(examples).to(world.device), None)
            if mine:
                sums.add(parts, step.shape)
    finally:
        step.module.train()
    return sums.over(world)


def full(tensor: Tensor) -> Tensor:
    """A tensor that may be in shards, whole; all processes call it."""
    from torch.distributed.tensor import DTensor

    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
