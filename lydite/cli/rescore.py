"""`lydite rescore`: stored outputs, scored again by the tasks as they are now."""

from pathlib import Path
from typing import Annotated

import typer

from lydite.cli.loading import task_of
from lydite.cli.options import task_names
from lydite.errors import TaskError
from lydite.evaluate import rescore as rescore_run
from lydite.report.grid import print_grid
from lydite.report.text import decimals, interval, number, one_line
from lydite.runs import find_runs, read_run
from lydite.types import Estimate, Task


def rescore(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="OUT folder, OUT/<model>, or one OUT/<model>/<task>.")],
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks",
            "-t",
            help="Task files or names to score with, with commas between; default: the task of each run as it is now.",
        ),
    ] = "",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that an lm_eval: task brings along.")
    ] = False,
) -> int:
    """Score stored outputs again, without the model.

    Metrics and answer extraction come from the task as it is defined now (its .toml or .py file, or the built-in
    task); prompts and outputs stay what they were. Values before and after are shown.
    """
    from lydite.tasks import load_tasks

    given: dict[str, Task] = {}
    if tasks:
        given = {task.name: task for task in load_tasks(task_names(tasks))[0]}
    rows: list[tuple[str, str, Estimate | None, Estimate]] = []
    leaves = find_runs(folder)
    for leaf in leaves:
        run = read_run(leaf)
        task = given.get(run.task.name)
        if task is None and not given:
            task = task_of(run, allow_code=trust_remote_code)
        if task is None:
            continue
        before, after = rescore_run(leaf, task)
        old = {estimate.metric: estimate for estimate in before.estimates}
        rows += [(run.model.name, run.task.name, old.get(new.metric), new) for new in after.estimates]
    if not rows:
        raise TaskError(f"no finished run in {folder} is of {', '.join(given) or 'a known task'}")
    _print(rows)
    return 0


def _print(rows: list[tuple[str, str, Estimate | None, Estimate]]) -> None:
    numbers = ["before", "now", "n", "failed"]
    grid = [["model", "task", "metric", *numbers]]
    for model, task, old, new in rows:
        names = [one_line(name) for name in (model, task, new.metric)]
        places = decimals(value for value in (old, new) if value)
        grid.append([*names, _number(old, places), _number(new, places), str(new.n), str(new.n_failed)])
    print_grid(grid, names=2, right=numbers)


def _number(estimate: Estimate | None, places: int) -> str:
    return f"{number(estimate.value, places)} {interval(estimate, places)}".rstrip() if estimate else "–"
