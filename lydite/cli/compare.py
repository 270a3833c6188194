"""`lydite compare`: runs of several models, paired sample by sample."""

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from lydite.errors import UserError
from lydite.naming import metric_under
from lydite.runs import LOGGED_BY
from lydite.types import Metric, Run


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="OUT folders, OUT/<model>, single OUT/<model>/<task>, or logs of lm-eval, lighteval, Inspect.",
        ),
    ],
    metric: Annotated[str | None, typer.Option(help="What to compare; default: each task's headline metric.")] = None,
    level: Annotated[float, typer.Option(help="Nominal coverage of the intervals.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Of the bootstrap and of random permutations.")] = 0,
    resamples: Annotated[int, typer.Option(min=100, help="How many of them.")] = 10_000,
    format_: Annotated[str, typer.Option("--format", help="table, markdown, latex or csv.")] = "table",
    json_: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> int:
    """Pair runs sample by sample: differences, intervals, tests.

    First says in which settings the runs differ and what cannot be paired; then, by task and group, each model's value
    on the samples that all share, the paired differences with p-values corrected for the number of tests (Holm), the
    smallest difference that could have been found, and letters: models that share one are not told apart.

    `lydite compare runs/mini-1a2b3c`
    """
    from lydite.cli.compare_tables import FORMATS, render
    from lydite.compare import compare as compare_runs
    from lydite.logs import as_runs

    if format_ not in FORMATS:
        raise UserError(f"unknown --format {format_!r}; known: {', '.join(FORMATS)}")
    if not 0 < level < 1:
        raise UserError(f"--level is a share like 0.95, not {level}")
    with tempfile.TemporaryDirectory() as temporary:
        folders = as_runs(runs, Path(temporary))
        found = compare_runs(folders, find_metric, metric=metric, level=level, resamples=resamples, seed=seed)
    if json_:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        print(render(found, format_), end="")
    return 0


def find_metric(run: Run, name: str) -> Metric | None:
    """The metric of the run's task as it is defined here; None where the task is not known or is broken."""
    from lydite.logs import metric_of
    from lydite.tasks import load_tasks

    if LOGGED_BY in run.environment:
        return metric_of(run, name)
    try:
        tasks, _ = load_tasks([run.environment.get("task_file", run.task.name)])
    except UserError:
        return None
    return metric_under([metric for task in tasks for metric in task.metrics], name)
