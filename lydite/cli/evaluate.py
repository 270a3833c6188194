"""`lydite evaluate`: models x tasks -> run folders, a table, a page."""

import dataclasses
import gc
import sys
import time
from collections import ChainMap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, cast

import typer

from lydite.cli import many
from lydite.cli.loading import ready_tasks
from lydite.cli.options import COMMAND, Settings, default_out, parse_set, settings_of, task_names
from lydite.cli.progress import Bar
from lydite.errors import UserError
from lydite.evaluate import choose_view, select
from lydite.evaluate import evaluate as run_one
from lydite.groups import group_estimates
from lydite.report.table import Format
from lydite.runs import encode, lock, read_groups, safe_name, write_groups
from lydite.types import Decoding, Group, Model, Run, Task

DTYPES = ("float32", "bfloat16", "float16", "float64", "auto")


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Short name, hub name, folder, .gguf file, pypi:..., http://... or openai:... (a server), uniform, random.",
        ),
    ],
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks", "-t", help="Task or group names, .toml or .py task files, lm_eval:NAME; with commas between."
        ),
    ] = "",
    data_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="LYDITE_DATA", help="Folder with benchmarks in their original formats; without it the hub is asked."
        ),
    ] = None,
    include_path: Annotated[
        Path | None, typer.Option(help="Folder with YAML tasks of lm-evaluation-harness, for --tasks lm_eval:NAME.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Run folder; made if missing, continued if begun. Default: runs/<tasks>-<hash of the settings>.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most that many samples of each task, picked by a hash of their ids.")
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=0, help="Examples in the prompt; default: what the task says.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Picks shots, samples under --limit, and sampled text.")] = 0,
    chat: Annotated[bool, typer.Option("--chat", help="Put prompts through the model's chat template.")] = False,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto (as stored).")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")] = "cpu",
    set_: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Decoding (max_new_tokens, temperature ...), model (device_map, revision, batch_tokens ...), view, prompt, shots_by.",
        ),
    ] = [],  # noqa: B006
    from_: Annotated[
        Path | None, typer.Option("--from", metavar="RUN", help="Repeat the tasks and settings of a run folder.")
    ] = None,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Take answers of equal weights to equal requests from earlier runs.")
    ] = False,
    format_: Annotated[Format, typer.Option("--format", help="table, markdown, latex or csv.")] = "table",
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON object on standard output instead of the table.")
    ] = False,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Run code that a hub checkpoint or an lm_eval: task brings along."),
    ] = False,
) -> int:
    """Judge models on tasks: numbers with intervals, a run folder, a page.

    `lydite evaluate smollm2-135m-instruct uniform --tasks mini`
    """
    if from_ is not None:
        clash = [
            flag
            for flag, given in (
                ("--tasks", tasks),
                ("--limit", limit),
                ("--shots", shots),
                ("--chat", chat),
                ("--seed", seed),
                ("--set", set_),
            )
            if given
        ]
        if clash:
            raise UserError(f"--from repeats a run's settings; leave out {', '.join(clash)}")
        settings = settings_of(from_)
    else:
        settings = Settings(
            tasks=task_names(tasks),
            data_dir=str(data_dir.absolute()) if data_dir else None,
            include_path=str(include_path.absolute()) if include_path else None,
            limit=limit,
            shots=shots,
            seed=seed,
            chat=chat,
            **parse_set(set_),
        )
    _check_models(models, settings, dtype)
    loaded, groups = _load_tasks(settings, trust_remote_code)
    out = out or default_out(settings, dtype)
    if not json_:
        print(f"{len(loaded)} task{'s' if len(loaded) != 1 else ''}, {settings.describe()} -> {out}", file=sys.stderr)
    with lock(out):
        runs: dict[str, dict[str, Run]] = {}
        with Bar(quiet=json_) as bar:
            for spec in models:
                with bar.loading(spec) as on_progress:
                    model = _load_model(spec, settings, dtype, device, trust_remote_code, on_progress)
                model = _keeping_answers(model) if reuse else model
                if model.info.name in runs:
                    raise UserError(f"two models are called {model.info.name}; give each its own --out")
                runs[model.info.name] = _run_tasks(model, loaded, settings, out, bar)
                write_groups(out, group_estimates(model.info.name, runs[model.info.name], groups))
                del model
                gc.unfreeze()
                gc.collect()  # networks hold themselves in cycles; the next model needs the room
        page = _report(out)
    _print(out, page, runs, settings, format_, json_)
    return (
        2
        if any(
            estimate.n_failed for of_model in runs.values() for run in of_model.values() for estimate in run.estimates
        )
        else 0
    )


def _check_models(models: list[str], settings: Settings, dtype: str) -> None:
    """What can be refused before anything is loaded."""
    from lydite.models.reference import is_null

    if not all(spec.strip() for spec in models):
        raise UserError("a model has an empty name; `lydite models` lists some")
    if dtype not in DTYPES:
        raise UserError(f"unknown --dtype {dtype!r}; known: {', '.join(DTYPES)}")
    twice = sorted({spec for spec in models if models.count(spec) > 1})
    if twice:
        raise UserError(f"{twice[0]} is named twice")
    # Null models know no options but their seed; beside a real model the others are meant for that one.
    unknown = sorted(settings.model.keys() - {"seed"})
    if unknown and all(is_null(spec) for spec in models):
        known = ", ".join([*Decoding.__struct_fields__, "view", "prompt", "shots_by", "seed"])
        raise UserError(f"unknown --set {unknown[0]}; for these models there are {known}")


def _load_tasks(settings: Settings, allow_code: bool) -> tuple[list[Task], list[Group]]:
    ready, groups = ready_tasks(settings, allow_code=allow_code)
    origin = {COMMAND: encode(settings).decode()}
    _refuse_one_folder([task.name for task in ready])
    # Chained, not copied: a task that reads from the hub learns its commit when its samples are read.
    return [
        dataclasses.replace(task, origin=ChainMap(origin, cast(dict[str, str], task.origin))) for task in ready
    ], groups


def _refuse_one_folder(names: list[str]) -> None:
    """Names that differ in signs that no folder can have would share a folder."""
    folders: dict[str, str] = {}
    for name in names:
        other = folders.setdefault(safe_name(name), name)
        if other != name:
            raise UserError(f"the tasks {other!r} and {name!r} would share the folder {safe_name(name)}; rename one")


def _load_model(
    spec: str, settings: Settings, dtype: str, device: str, trust: bool, on_progress: Callable[[str, int, int], None]
) -> Model:
    from lydite.models import load_model
    from lydite.models.messages import Load

    start = time.perf_counter()
    model = load_model(
        spec,
        dtype=dtype,
        device=many.own_device(device, settings.model),
        trust_remote_code=trust,
        settings=settings.model,
        on_progress=on_progress,
    )
    load = Load(spec=spec, dtype=dtype, device=device, trust_remote_code=trust, settings=settings.model)
    model = many.shared(model, load)
    model.usage.load_seconds = time.perf_counter() - start
    gc.freeze()  # libraries and model stay: the collector walks over answers alone, 0.2 s less each time
    return model


def _keeping_answers(model: Model) -> Model:
    from lydite.models.cache import CachedModel, answers_folder

    return CachedModel(model, answers_folder())


def _run_tasks(model: Model, tasks: list[Task], settings: Settings, out: Path, bar: Bar) -> dict[str, Run]:
    """Every task on one model; refuses before data is loaded where the model cannot answer."""
    for task in tasks:
        choose_view(model, task, settings.view)
    bar.begin(model.info.name, {task.name: len(select(task, settings.limit, settings.seed)) for task in tasks})
    runs = {}
    for task in tasks:
        runs[task.name] = run_one(
            model,
            task,
            view=settings.view,
            out=out,
            limit=settings.limit,
            seed=settings.seed,
            decoding=settings.decoding,
            on_progress=bar.update(task.name),
        )
    return runs


def _report(out: Path) -> Path:
    from lydite.report import write_report

    return write_report(out)


def _print(
    out: Path, page: Path, runs: Mapping[str, Mapping[str, Run]], settings: Settings, format_: Format, json_: bool
) -> None:
    from lydite.report.table import tables

    flat = [run for of_model in runs.values() for run in of_model.values()]
    groups = [group for group in read_groups(out) if group.model in runs]
    if json_:
        rows = [
            {
                "model": run.model.name,
                "task": run.task.name,
                "folder": str(out / safe_name(run.model.name) / safe_name(run.task.name)),
                "estimates": run.estimates,
            }
            for run in flat
        ]
        sys.stdout.write(encode({"runs": rows, "groups": groups, "report": str(page)}).decode() + "\n")
        return
    print(tables(flat, groups, format=format_), end="")
    for name, of_model in runs.items():
        print(_speed(name, list(of_model.values())))
    print(f"report: {page}")


def _speed(name: str, runs: list[Run]) -> str:
    """One line of cost: seconds, tokens, work saved by sharing, memory."""
    seconds = sum(run.timing.seconds for run in runs)
    requested = sum(run.timing.tokens_requested for run in runs)
    computed = sum(run.timing.tokens_computed for run in runs)
    generated = sum(run.timing.tokens_generated for run in runs)
    peak = max(run.timing.peak_memory_bytes for run in runs)
    parts = [
        f"{sum(run.n_samples for run in runs):,} samples in {seconds:.1f} s (+ {max(run.timing.load_seconds for run in runs):.1f} s to load)"
    ]
    if computed:
        parts.append(f"{computed:,} of {requested:,} tokens computed")
    if generated:
        parts.append(f"{generated:,} generated")
    kernel = runs[-1].timing.kernel
    return f"{name}: {', '.join(parts)}, peak memory {peak / 2**30:.1f} GiB" + (f", kernel {kernel}" if kernel else "")
