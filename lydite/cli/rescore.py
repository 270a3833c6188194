"""`lydite rescore`: stored outputs, scored again by the tasks as they are now."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lydite.cli.options import task_names
from lydite.errors import TaskError
from lydite.evaluate import rescore as rescore_run
from lydite.report.text import one_line
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
            task = load_tasks([run.environment.get("task_file", run.task.name)])[0][0]
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
    table = Table(box=None, pad_edge=False)
    for name in ("model", "task", "metric", "before", "now", "n", "failed"):
        table.add_column(name, justify="right" if name in ("before", "now", "n", "failed") else "left")
    for model, task, old, new in rows:
        # As Text: rich would read [..] in a name as markup, and a terminal obeys control characters.
        names = [Text(one_line(name)) for name in (model, task, new.metric)]
        table.add_row(*names, _number(old), _number(new), str(new.n), str(new.n_failed))
    Console().print(table)


def _number(estimate: Estimate | None) -> str:
    return "-" if estimate is None or estimate.value is None else f"{estimate.value:.4f}"
