"""`lydite export`: runs in the files of another system, another system's logs as runs, n-gram models as ARPA files."""

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
            metavar="RUN",
            help="OUT folder, OUT/<model>, one OUT/<model>/<task>, or another system's logs; for arpa an n-gram model.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder to write into; made if missing. For arpa also a file.")
    ],
    to: Annotated[str, typer.Option("--to", help="lm-eval, lydite or arpa.")] = "lm-eval",
) -> None:
    """Write runs as another system's logs, logs as run folders, or an n-gram model as an ARPA file.

    `--to lm-eval` writes results_*.json and samples_*.jsonl as lm-evaluation-harness does. `--to lydite` keeps logs of
    lm-eval, lighteval or Inspect as run folders. `--to arpa` writes an n-gram model that `lydite pretrain` made for KenLM
    and others (gzipped where the name ends with .gz); `lydite evaluate FILE.arpa --set tokenizer=MODEL` reads it again.

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
    elif to == "arpa":
        print(_write_arpa(run, out))
    else:
        raise UserError(f"unknown --to {to!r}; there are lm-eval, lydite and arpa")


def _write_arpa(run: Path, out: Path) -> Path:
    """The ARPA file of the n-gram model in a folder, or in the run folder of `lydite pretrain` that has it."""
    from lydite.models.ngram import export_arpa

    folder = run / "model" if (run / "model" / "config.json").exists() else run
    if not (folder / "config.json").exists():
        raise UserError(f"{run} holds no n-gram model; name a folder that `lydite pretrain` wrote")
    whole = run.resolve()
    name = f"{whole.parent.name if whole.name == 'model' else whole.name}.arpa"
    path = out if out.name.lower().endswith((".arpa", ".arpa.gz")) else out / name
    export_arpa(folder, path)
    return path
