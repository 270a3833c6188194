"""`lydite audit`: right answers that were not read, and outputs that were cut, empty or over-long."""

from pathlib import Path
from typing import Annotated

import typer

from lydite.audit import CENSORED, Audit, Missed
from lydite.audit import audit as audit_run
from lydite.cli.options import task_names
from lydite.errors import RunError
from lydite.report.grid import print_grid
from lydite.report.text import one_line
from lydite.runs import find_runs, read_run
from lydite.types import Run, Task


def audit(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="OUT folder, OUT/<model>, or one OUT/<model>/<task>.")],
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks", "-t", help="Task files or names to score with; default: the task of each run as it is now."
        ),
    ] = "",
    show: Annotated[int, typer.Option("--show", min=0, help="So many missed answers of each run are shown.")] = 5,
) -> int:
    """List outputs in which a right answer stands but was not read, and what the score would be with it.

    `with missed` is the score as if each of them had been read; they are candidates to look at, since a text can name
    the right answer and mean another. `bounds` are the scores as if all outputs that were cut at max_new_tokens, empty
    or over-long had been wrong, or right. Nothing in the folder is changed.
    """
    from lydite.tasks import load_tasks

    given = {task.name: task for task in load_tasks(task_names(tasks))[0]} if tasks else {}
    found: list[tuple[Run, Audit]] = []
    leaves = find_runs(folder)
    for leaf in leaves:
        run = read_run(leaf)
        task: Task | None = given.get(run.task.name)
        if run.view != "generate" or (given and task is None):
            continue
        if task is None:
            task = load_tasks([run.environment.get("task_file", run.task.name)])[0][0]
        found.append((run, audit_run(leaf, task)))
    if not found:
        raise RunError(f"no run in {folder} has written answers to audit; they come from tasks with the view generate")
    _print_scores(found)
    for run, one in found:
        missed = [case for metric in one.metrics for case in metric.missed]
        if missed and show:
            print()
            _print_missed(run, missed, show)
    return 0


def _print_scores(found: list[tuple[Run, Audit]]) -> None:
    numbers = ["score", "missed", "with missed", "n", "unread", *CENSORED, "failed", "bounds"]
    grid = [["model", "task", "metric", *numbers]]
    for run, one in found:
        counts = [str(one.outcomes[name]) for name in ("unread", *CENSORED, "failed")]
        for metric in one.metrics:
            names = [one_line(name) for name in (run.model.name, run.task.name, metric.metric)]
            bounds = f"{_number(metric.low)} to {_number(metric.high)}" if metric.low != metric.high else "–"
            scores = [_number(metric.value), str(len(metric.missed)), _number(metric.with_missed)]
            grid.append([*names, *scores, str(one.n), *counts, bounds])
    print_grid(grid, names=2, right=numbers)


def _print_missed(run: Run, missed: list[Missed], show: int) -> None:
    """The first cases, each sample once, with the place where the right answer stands."""
    cases = list({case.sample_id: case for case in reversed(missed)}.values())[::-1]
    print(
        f"{one_line(run.model.name)}, {one_line(run.task.name)}: {len(cases)} missed"
        + (f", {show} shown" if len(cases) > show else "")
    )
    for case in cases[:show]:
        read = "nothing" if case.answer is None else repr(one_line(case.answer)[:60])
        print(f"  {one_line(case.sample_id)}: read {read}, right {one_line(case.right)[:60]!r}, in: {_excerpt(case)}")


def _excerpt(case: Missed) -> str:
    """Forty characters on both sides of the right answer, or the end of the text where it is spelled otherwise."""
    place = case.text.casefold().find(case.right.casefold())
    if place < 0:
        return f"…{one_line(case.text[-100:])}"
    start, end = max(0, place - 40), place + len(case.right) + 40
    return ("…" if start else "") + one_line(case.text[start:end]) + ("…" if end < len(case.text) else "")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
