"""`lydite models`: the catalogue with sizes, licences and what is cached; fetch a model ahead, remove it, convert one."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

from lydite.errors import UserError
from lydite.models.catalogue import Entry, catalogue, catalogue_entry
from lydite.models.sources import Source, cached_folder, find_checkpoint
from lydite.models.store import cache_folder, entry_bytes, entry_folder, remove_entry
from lydite.models.wheels import OnProgress
from lydite.report.grid import print_grid


def models(
    name: Annotated[
        str,
        typer.Argument(metavar="[NAME]", help="Show, fetch, remove or convert this one; without it, the catalogue."),
    ] = "",
    fetch: Annotated[bool, typer.Option("--fetch", help="Download and convert NAME now.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove NAME from Lydite's cache.")] = False,
    source: Annotated[str, typer.Option("--source", help="With --fetch: auto, wheel or hub.")] = "auto",
    to: Annotated[
        str, typer.Option("--to", help="Convert the folder NAME: bert, roberta, gpt2, llama, t5, bart, lydite.")
    ] = "",
    out: Annotated[Path | None, typer.Option("--out", help="With --to: the new folder.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object for machines.")] = False,
) -> int:
    """List the catalogue of models, fetch, remove or convert one.

    NAME is a short name of the catalogue; --fetch and --remove also take pypi:NAME==VERSION#FILE. Any other model is
    named directly: `lydite evaluate` takes hub names, checkpoint folders and .gguf files too. --to writes a
    lydite_transformer checkpoint in the layout of another family, which transformers loads; --to lydite reads one.
    """
    if (fetch or remove) and not name:
        raise UserError("name the model to fetch or remove; `lydite models` lists them")
    if fetch + remove + bool(to) > 1:
        raise UserError("--fetch, --remove and --to exclude each other; choose one")
    if to:
        _convert(name, to, out, json_)
    elif out is not None:
        raise UserError("--out is the folder that --to writes; name the layout with --to too")
    elif remove:
        _remove(name, json_)
    elif fetch:
        _fetch(name, source, json_)
    elif name:
        _show(name, catalogue_entry(name), json_)
    else:
        _list(json_)
    return 0


def _list(json_: bool) -> None:
    entries = {name: _facts(name, entry) for name, entry in catalogue().items()}
    if json_:
        print(json.dumps({"cache": str(cache_folder()), "models": list(entries.values())}, ensure_ascii=False))
        return
    grid = [["name", "params", "fetch", "licence", "from", "cached"]]
    for name, entry in catalogue().items():
        folder = cached_folder(entry)
        row = [name, _millions(entry.parameters), _megabytes(entry.download_bytes)]
        row += [entry.licence.replace(" Terms of Use", " Terms"), "wheel, hub" if entry.wheel else "hub"]
        grid.append([*row, _megabytes(entry_bytes(folder)) if folder else "-"])
    grid.append(["uniform, random", "0", "-", "", "null models", "-"])
    print_grid(grid, names=1, right=("params", "fetch", "cached"))
    console = Console(highlight=False)
    console.print(f"\ncache: {cache_folder()} (LYDITE_CACHE moves it)", soft_wrap=True, markup=False)
    console.print("`lydite models NAME` shows one, --fetch gets it ahead, --remove frees its space.", markup=False)


def _show(name: str, entry: Entry, json_: bool) -> None:
    facts = _facts(name, entry)
    if json_:
        print(json.dumps(facts, ensure_ascii=False))
        return
    shown = {
        "parameters": f"{entry.parameters:,}",
        "longest text": f"{entry.max_tokens:,} tokens",
        "languages": ", ".join(entry.languages),
        "licence": f"{entry.licence} ({entry.licence_url})" if entry.licence_url else entry.licence,
        "hub": entry.hub,
        "wheel": entry.wheel or "-",
        "sha256": entry.sha256 or "-",
        "download": _megabytes(entry.download_bytes),
        "stored": _megabytes(entry.stored_bytes),
        "cached": facts["cached"] or "no",
    }
    print(f"{name}: {entry.description}")
    for title, value in shown.items():
        print(f"  {title:13}{value}")


def _facts(name: str, entry: Entry) -> dict[str, Any]:
    folder = cached_folder(entry)
    specs = [spec for spec in (entry.wheel, entry.hub) if spec]
    fields = ("description", "parameters", "max_tokens", "licence", "licence_url", "download_bytes", "sha256")
    facts = {field: getattr(entry, field) for field in fields}
    cached = {"cached": str(folder) if folder else None, "cached_bytes": entry_bytes(folder) if folder else 0}
    return {"name": name, **facts, "languages": list(entry.languages), "specs": specs, **cached}


def _fetch(name: str, source: str, json_: bool) -> None:
    # find_checkpoint itself refuses a source that is none of these
    chosen: Source = source  # type: ignore[assignment]
    console = Console(stderr=True, quiet=json_)
    bar = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), console=console, transient=True
    )
    if console.is_terminal:
        with bar:
            found = find_checkpoint(name, source=chosen, on_progress=_progress(bar))
    else:
        found = find_checkpoint(name, source=chosen)
    facts = {"name": found.name, "folder": str(found.folder), "source": found.source}
    print(json.dumps(facts) if json_ else f"{found.name} is ready in {found.folder}")


def _progress(bar: Progress) -> OnProgress:
    tasks: dict[str, TaskID] = {}

    def on_progress(what: str, done: int, total: int) -> None:
        if what not in tasks:
            for old in bar.task_ids:
                bar.remove_task(old)
            tasks[what] = bar.add_task(what, total=total or None)
        bar.update(tasks[what], completed=done, total=total or None)

    return on_progress


def _remove(name: str, json_: bool) -> None:
    spec = name if name.startswith("pypi:") else catalogue_entry(name).wheel
    folder = entry_folder(spec) if spec else None
    freed = remove_entry(folder) if folder and folder.exists() else 0
    if json_:
        print(json.dumps({"name": name, "removed_bytes": freed}))
    elif freed:
        print(f"{name}: {_megabytes(freed)} freed")
    else:
        other = _hub_hint(name)
        print(f"{name} is not in Lydite's cache{other}")


def _convert(name: str, to: str, out: Path | None, json_: bool) -> None:
    if not name or out is None:
        raise UserError(
            "--to needs the checkpoint folder to convert and the folder to write: FOLDER --to gpt2 --out DIR"
        )
    from lydite.models.transformer_convert import export_checkpoint, import_checkpoint

    if to == "lydite":
        read = import_checkpoint(Path(name), out)
        print(
            json.dumps({"folder": str(out), "read": read})
            if json_
            else f"{out}: a lydite_transformer, read from {read}"
        )
    else:
        export_checkpoint(Path(name), out, to)
        print(json.dumps({"folder": str(out), "written": to}) if json_ else f"{out}: {to}, as transformers loads it")


def _hub_hint(name: str) -> str:
    entry = catalogue().get(name)
    folder: Path | None = cached_folder(entry) if entry else None
    return f"; the hub's own cache holds it ({folder}): `hf cache` removes it there" if folder else ""


def _millions(count: int) -> str:
    return f"{count / 1e6:.0f} M"


def _megabytes(count: int | None) -> str:
    return "?" if count is None else f"{count / 1e6:.0f} MB"
