"""`lydite export`: runs in the files of another system, or another system's logs as runs."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from lydite.errors import UserError
from lydite.runs import find_runs


def export(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="OUT folder, OUT/<model>, one OUT/<model>/<task>, or another system's logs."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write into; made if missing.")],
    to: Annotated[str, typer.Option("--to", help="lm-eval or lydite.")] = "lm-eval",
) -> None:
    """Write runs as another system's logs, or logs as run folders.

    `--to lm-eval` writes results_*.json and samples_*.jsonl as lm-evaluation-harness does. `--to lydite` keeps logs of
    lm-eval, lighteval or Inspect as run folders.

    `lydite export runs/first --to lm-eval --out logs`
    """
    from lydite.logs import as_runs, write_runs

    if to == "lydite":
        if not write_runs(run, out):
            find_runs(run)  # says what is wrong where there are neither runs nor logs
            raise UserError(f"{run} holds runs of Lydite already; --to lm-eval writes them as logs")
        print(out)
    elif to == "lm-eval":
        from lydite.logs.write_lm_eval import write_lm_eval

        with tempfile.TemporaryDirectory() as temporary:
            [found] = as_runs([run], Path(temporary))
            for path in write_lm_eval(find_runs(found), out):
                print(path)
    else:
        raise UserError(f"unknown --to {to!r}; there are lm-eval and lydite")
