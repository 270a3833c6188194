"""`lydite prepare`: text to a corpus of token shards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from lydite.cli.prepare_screen import Screen, print_report
from lydite.data.prepare import BannedText, read_recipe
from lydite.data.prepare import prepare as run_prepare
from lydite.runs import encode


def prepare(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the corpus; made if missing, continued if begun.")
    ],
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE...]",
            help="Text, JSONL or Parquet files (.gz, .zst too), tokens of datatrove, folders, patterns, or hf:NAME.",
        ),
    ] = None,
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", "-t", help="A folder with a tokenizer.json, or bytes, or characters.")
    ] = "",
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML file with settings and tables of sources.")
    ] = None,
    without: Annotated[
        str, typer.Option("--without", help="Tasks whose items no document may hold; with commas between.")
    ] = "",
    data_dir: Annotated[
        Path | None, typer.Option(envvar="LYDITE_DATA", help="Folder with benchmarks, for --without.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")] = None,
    set_: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="column, documents, rules, languages, validation, temperature, near_threshold, seed ...",
        ),
    ] = [],  # noqa: B006
    json_: Annotated[bool, typer.Option("--json", help="corpus.json on standard output instead of the table.")] = False,
) -> int:
    """Turn text into a corpus: cleaned, without duplicates, shuffled, split, in token shards that are mapped.

    `lydite prepare books/ web.jsonl.gz --tokenizer my-tokenizer --out corpus`
    """
    recipe = read_recipe(config, sources or [], set_, tokenizer)
    banned = list(_texts(without, data_dir)) if without else []
    with Screen(quiet=json_) as screen:
        info = run_prepare(recipe, out, banned_texts=banned, workers=workers, on_progress=screen.update)
    if json_:
        print(encode(info).decode())
    else:
        print_report(out, info)
    return 0


def _texts(names: str, data_dir: Path | None) -> Iterator[BannedText]:
    """Questions, choices and answers of the tasks' test samples."""
    from lydite.cli.options import task_names
    from lydite.tasks import load_tasks

    for task in load_tasks(task_names(names), data_dir=data_dir)[0]:
        for sample in task.samples("test"):
            for text in (sample.input, *sample.choices, *sample.targets):
                if text.strip():
                    yield BannedText(task.name, sample.id, text)
