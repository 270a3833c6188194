"""Whether a run has learned more than how often each token comes: the plateau at which too high a learning rate holds a network.

Contract: a hint in a line at the end of a run, never an error; none where the labels of too few steps were seen to tell.
"""

from collections.abc import Sequence

import torch

from lydite.training.batch import IGNORE, TrainBatch
from lydite.training.guard import MEMORY

_NEAR = 0.98
"""A loss of so much of the entropy of the labels is no better than it."""


class Labels:
    """How often each token was a label, in the steps of one process."""

    def __init__(self) -> None:
        self.counts = torch.zeros(0, dtype=torch.int64)
        self.num_steps = 0

    def add(self, batches: Sequence[TrainBatch]) -> None:
        """The labels of one step."""
        self.num_steps += 1
        for batch in batches:
            labels = batch.targets.get("tokens")
            if labels is not None:
                more = torch.bincount(labels[labels != IGNORE].cpu(), minlength=len(self.counts))
                more[: len(self.counts)] += self.counts
                self.counts = more

    def entropy(self) -> float:
        """Nats a label: the loss of a table that knows how often each comes, and nothing else."""
        shares = self.counts[self.counts > 0].double() / int(self.counts.sum())
        return float(-(shares * shares.log()).sum())

    def hint(self, losses: Sequence[float]) -> str:
        """A line where the mean of the last steps' losses is no better than that table; else empty."""
        if min(self.num_steps, len(losses)) < MEMORY or not len(self.counts):
            return ""
        mean, plain = sum(losses) / len(losses), self.entropy()
        if plain < 0.1 or mean < _NEAR * plain:
            return ""
        return (
            f"the loss of the last {len(losses)} steps, {mean:.3f}, is no better than that of a table which knows only how often each "
            f"token comes ({plain:.3f}); lower the learning rate (in another --out), or train for more steps"
        )
