"""Curves for programs that people already watch: TensorBoard, Weights & Biases, MLflow. Each is an extra of its own name.

Contract: they hear what log.jsonl holds and nothing else; without the extra the run does not begin, and says so. W&B keeps
its files in RUN/wandb and does as its own environment variables say (WANDB_MODE=offline sends nothing).
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from lydite.errors import UserError
from lydite.training.log import EvalLine, Line, ScoreLine, StepLine
from lydite.training.recipe import Recipe

Write = Callable[[dict[str, float], int], None]


class Trackers:
    """All that a recipe names."""

    def __init__(self, names: Sequence[str], folder: Path, recipe: Recipe) -> None:
        openers = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
        self._open: list[tuple[Write, Callable[[], None]]] = []
        for name in names:
            self._open.append(openers[name](folder, msgspec.to_builtins(recipe)))

    def show(self, line: Line) -> None:
        values = numbers(line)
        for write, _ in self._open if values else ():
            write(values, line.step)

    def close(self) -> None:
        for _, end in self._open:
            end()


def numbers(line: Line) -> dict[str, float]:
    """The curves that a line adds a point to."""
    if isinstance(line, StepLine):
        found = {"train/loss": line.loss, "train/learning_rate": line.learning_rate, "train/grad_norm": line.grad_norm}
        found["train/tokens_per_second"] = line.tokens_per_second
        return found | {f"train/{name}": value for name, value in line.parts.items()}
    if isinstance(line, EvalLine):
        bits = {} if line.bits_per_byte is None else {"validation/bits_per_byte": line.bits_per_byte}
        return {"validation/loss": line.loss, **bits}
    return {f"{line.task}/{line.metric}": line.value} if isinstance(line, ScoreLine) else {}


def _module(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(
            f"log.trackers names {extra}, which is not installed; pip install 'lydite[{extra}]', or leave it out"
        ) from error


def _tensorboard(folder: Path, config: dict[str, Any]) -> tuple[Write, Callable[[], None]]:
    writer = _module("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(folder / "tensorboard"))

    def write(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return write, writer.close


def _wandb(folder: Path, config: dict[str, Any]) -> tuple[Write, Callable[[], None]]:
    wandb = _module("wandb", "wandb")
    run = wandb.init(project="lydite", name=folder.name, id=folder.name, resume="allow", dir=str(folder), config=config)
    return (lambda values, step: run.log(values, step=step)), run.finish


def _mlflow(folder: Path, config: dict[str, Any]) -> tuple[Write, Callable[[], None]]:
    mlflow = _module("mlflow", "mlflow")
    mlflow.start_run(run_name=folder.name)
    mlflow.log_dict(config, "recipe.json")
    return (lambda values, step: mlflow.log_metrics(values, step=step)), mlflow.end_run
