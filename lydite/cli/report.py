"""`lydite report OUT`: make the page of finished runs again, from their folders alone."""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer


def report(
    out: Annotated[
        Path,
        typer.Argument(
            help="The --out folder of `lydite evaluate`, one run inside it, or logs of lm-eval, lighteval, Inspect, or a training run."
        ),
    ],
) -> None:
    """Makes OUT/report.html from the runs in OUT and prints its path. Needs neither the model nor the data."""
    if (out / "log.jsonl").is_file():  # of `lydite pretrain`
        from lydite.training.page import write_page

        print(write_page(out, out.resolve().name))
        return
    from lydite.logs import as_runs
    from lydite.report import write_report

    with tempfile.TemporaryDirectory() as temporary:
        [found] = as_runs([out], Path(temporary))
        page = write_report(found)
        if found != out:  # logs: the page stands beside them
            page = Path(shutil.copy(page, (out if out.is_dir() else out.parent) / page.name))
    print(page)
