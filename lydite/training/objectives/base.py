"""What every objective promises to the training loop.

The data is stateless: an example is a pure function of (seed, epoch, index), so that a run resumes anywhere and any process
can make any example. The objective shuffles; the loop takes the indices of an epoch in order, cuts them into
batches, and deals them out to micro-batches and processes as it likes.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from torch import Tensor, nn

from lydite.training.batch import Example, Loss, TrainBatch

Documents = Sequence[np.ndarray]
"""Token ids of each document, without special tokens; a Split of a corpus, or plain arrays."""


class Objective(Protocol):
    """From documents to examples, batches and a loss."""

    rows: int | None
    """Where an example continues the one `rows` before it (carried state): a step must take exactly so many; else None."""

    def num_examples(self, epoch: int) -> int:
        """How many examples epoch `epoch` (from 0) has; at least 1."""
        ...

    def example(self, epoch: int, index: int) -> Example:
        """Example `index` of the epoch, in the order in which the loop is to take them."""
        ...

    def collate(self, examples: Sequence[Example]) -> TrainBatch:
        """A batch of one or more examples."""
        ...

    def loss(self, network: nn.Module, batch: TrainBatch) -> Loss:
        """Runs the network (or what wraps it: DistributedDataParallel, what `wrap` gave) over the batch."""
        ...

    def wrap(self, network: nn.Module) -> nn.Module:
        """What is trained: the network itself, or a module that holds it and what else the objective needs (ELECTRA's
        generator). The loop optimises what comes back, and saves `network` as the model."""
        ...

    def carried(self) -> dict[str, Tensor]:
        """What the objective keeps from one step to the next (the state of carried streams), for a checkpoint."""
        ...

    def carry(self, kept: dict[str, Tensor]) -> None:
        """Takes up what `carried` gave."""
        ...


class Stateless:
    """What most objectives answer: no carried state, and the network is trained as it is."""

    rows: int | None = None

    def wrap(self, network: nn.Module) -> nn.Module:
        return network

    def carried(self) -> dict[str, Tensor]:
        return {}

    def carry(self, kept: dict[str, Tensor]) -> None:
        assert not kept


def generator(seed: int, epoch: int, index: int, salt: int = 0) -> np.random.Generator:
    """The random numbers of one example; `salt` keeps several uses of one key apart."""
    return np.random.default_rng((seed, epoch, index, salt))
