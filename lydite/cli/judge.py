"""`lydite judge`: a neural metric over the answers of finished runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from lydite.cli.options import parse_set
from lydite.errors import RunError, UserError
from lydite.judge import Pass, Scorer, second_pass
from lydite.report.grid import print_grid
from lydite.report.text import decimals, interval, number, one_line
from lydite.runs import find_runs, read_run
from lydite.types import Estimate

OPTIONS: Mapping[str, Mapping[str, type]] = {
    "bertscore": {"layer": int, "batch_size": int, "device": str},
    "comet": {"batch_size": int},
}
"""Metric to what `--set` may say about its model."""


def judge(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="OUT folder, OUT/<model>, or one OUT/<model>/<task>.")],
    metric: Annotated[str, typer.Option("--metric", "-m", help="bertscore or comet.")],
    model: Annotated[
        str,
        typer.Option(help="bertscore: an encoder, by folder or hub name; comet: a name of its package, or a .ckpt."),
    ],
    set_: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="layer (bertscore), batch_size, device.")
    ] = [],  # noqa: B006
) -> int:
    """Score the written answers of finished runs with a neural metric, as a second pass.

    The scores are kept in the run folder beside the others, under the name of the metric and its model; earlier ones by
    the same are replaced, and no other number changes.

    `lydite judge runs/first --metric bertscore --model roberta-large`
    """
    options = _options(metric, set_)
    leaves = [leaf for leaf in find_runs(folder) if read_run(leaf).view == "generate"]
    if not leaves:
        raise RunError(f"no run in {folder} has written answers to judge; they come from tasks with the view generate")
    scorer = _scorer(metric, model, options)
    found: list[tuple[str, str, Pass]] = []
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        for leaf in leaves:
            run = read_run(leaf)
            line = bar.add_task(one_line(f"{run.model.name} · {run.task.name}"), total=None)

            def on_progress(done: int, total: int, line: Any = line) -> None:
                bar.update(line, completed=done, total=total)

            found.append((run.model.name, run.task.name, second_pass(leaf, scorer, on_progress=on_progress)))
    _print(found)
    return 2 if any(estimate.n_failed for _, _, one in found for estimate in one.estimates) else 0


def _options(metric: str, pairs: list[str]) -> dict[str, Any]:
    if metric not in OPTIONS:
        raise UserError(f"unknown --metric {metric!r}; there are {' and '.join(OPTIONS)}")
    settings = parse_set(pairs)
    given: dict[str, Any] = {**settings.pop("model"), **settings.pop("decoding"), **settings}
    for key, value in given.items():
        kind = OPTIONS[metric].get(key)
        if kind is None:
            raise UserError(f"unknown --set {key} for {metric}; known: {', '.join(OPTIONS[metric])}")
        given_kind = type(value)
        if given_kind is not kind:
            raise UserError(f"--set {key}={value} is not {'a whole number' if kind is int else 'a text'}")
        if key == "batch_size" and value < 1:
            raise UserError(f"--set batch_size={value} is less than 1")
    return given


def _scorer(metric: str, model: str, options: Mapping[str, Any]) -> Scorer:
    if metric == "comet":
        from lydite.judge.comet import Comet

        return Comet(model, **options)
    from lydite.judge.bertscore import BertScore
    from lydite.models.encoder import TextEncoder

    return BertScore(TextEncoder(model, **options))


def _print(found: list[tuple[str, str, Pass]]) -> None:
    numbers = ["value", "n", "failed"]
    grid = [["model", "task", "metric", *numbers]]
    for model, task, one in found:
        for estimate in one.estimates:
            names = [one_line(name) for name in (model, task, estimate.metric)]
            grid.append([*names, _number(estimate), str(estimate.n), str(estimate.n_failed)])
    print_grid(grid, names=2, right=numbers)
    for signature in dict.fromkeys(estimate.signature for _, _, one in found for estimate in one.estimates):
        print(signature)


def _number(estimate: Estimate) -> str:
    places = decimals([estimate])
    return f"{number(estimate.value, places)} {interval(estimate, places)}".rstrip()
