"""What is done with a step that went wrong: its loss or gradient is not finite, or its loss explodes.

A loss explodes where it is above `explode_factor` times the mean of the last 100 good steps, once there are 100. The rule
`on_nan` then decides. `stop`: the run ends with one line; the step is not applied, and its batch stands in
RUN/bad-step-N as batch.safetensors and batch.json. `skip`: the update is left out (gradients are thrown away, the
learning rate moves on), a line in the log says so, and after 10 such steps in a row the run stops as above.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from lydite.errors import UserError
from lydite.runs import write_json
from lydite.training.batch import TrainBatch
from lydite.training.recipe import TrainingTable

MEMORY = 100
MOST_SKIPPED = 10


class Guard:
    """Watches losses; `losses` and `num_skipped` go into checkpoints, so that a resumed run decides alike."""

    def __init__(self, table: TrainingTable) -> None:
        self.rule, self.factor = table.on_nan, table.explode_factor
        self.losses: deque[float] = deque(maxlen=MEMORY)
        self.num_skipped = 0
        """In a row."""

    def problem(self, loss: float, norm: float) -> str:
        """What is wrong with a step, in words; empty where nothing is."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm):
            return f"the norm of the gradient is {norm}"
        mean = sum(self.losses) / len(self.losses) if len(self.losses) == MEMORY else math.inf
        if self.factor and loss > self.factor * mean:
            return f"the loss is {loss:.3g}, more than {self.factor:g} times the mean of the last {MEMORY} steps"
        return ""

    def good(self, loss: float) -> None:
        self.losses.append(loss)
        self.num_skipped = 0

    def stops(self) -> bool:
        """Whether the run stops at a bad step; else it is counted as skipped."""
        self.num_skipped += 1
        return self.rule == "stop" or self.num_skipped > MOST_SKIPPED


def save_bad_step(
    folder: Path, step: int, problem: str, batches: Sequence[TrainBatch], rank: int, rule: str = "stop"
) -> UserError:
    """Writes the batches of a bad step and returns the error to raise; `rule`: that of `on_nan`."""
    place = folder / f"bad-step-{step}"
    tensors = {
        f"{number}.{name}": tensor.contiguous()
        for number, batch in enumerate(batches)
        for name, tensor in _tensors(batch)
    }
    try:
        place.mkdir(exist_ok=True)
        name = "batch" if rank == 0 else f"batch-{rank}"
        save_file(tensors, str(place / f"{name}.safetensors"))
        write_json(place / f"{name}.json", {"step": step, "problem": problem, "counts": [b.counts for b in batches]})
    except OSError as error:
        return UserError(f"step {step}: {problem}; its batch could not be saved: {error.strerror}")
    again, mend = (
        ("", ", or continue with --set training.on_nan=skip")
        if rule == "stop"
        else (f", after {MOST_SKIPPED} that were skipped", "")
    )
    return UserError(
        f"step {step}: {problem}{again}; its batch is in {place}. Lower the learning rate in another --out{mend}"
    )


def _tensors(batch: TrainBatch) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a batch; a mixture's by the number of the objective."""
    yield from ((f"inputs.{name}", tensor) for name, tensor in batch.inputs.items())
    yield from ((f"targets.{name}", tensor) for name, tensor in batch.targets.items())
    for number, member in batch.members.items():
        yield from ((f"{number}.{name}", tensor) for name, tensor in _tensors(member))
