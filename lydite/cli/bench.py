"""`lydite bench`: how fast a model answers on this machine."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lydite.bench import Cell, Grid, Speeds
from lydite.bench import bench as run_bench
from lydite.cli.options import parse_set
from lydite.cli.progress import Bar
from lydite.errors import UserError
from lydite.report.text import one_line
from lydite.runs import encode, write_json


def bench(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As for evaluate: short name, hub name, folder ...")],
    batches: Annotated[str, typer.Option(help="Requests at a time, with commas between.")] = "1,8,32",
    lengths: Annotated[str, typer.Option(help="Tokens of a prompt, with commas between.")] = "128,512",
    new_tokens: Annotated[int, typer.Option("--new-tokens", min=1, help="Tokens to generate after a prompt.")] = 32,
    repeats: Annotated[
        int, typer.Option(min=1, help="Runs of each, of which the median counts; slow ones get one.")
    ] = 3,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write bench.json and bench.png there.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto (as stored).")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")] = "cpu",
    set_: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Settings of the model: kernel, batch_tokens ...")
    ] = [],  # noqa: B006
    json_: Annotated[bool, typer.Option("--json", help="One JSON object instead of the table.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that a hub checkpoint brings along.")
    ] = False,
) -> int:
    """Measure how fast a model answers on this machine: loading, prompts, new tokens, memory.

    `lydite bench smollm2-135m-instruct --batches 1,8 --lengths 128`
    """
    grid = Grid(
        batches=_numbers("--batches", batches),
        lengths=_numbers("--lengths", lengths),
        new_tokens=new_tokens,
        repeats=repeats,
    )
    settings = _settings(set_)
    _make_folder(out)
    try:
        with Bar(quiet=json_) as bar, bar.loading(model) as on_progress:
            from lydite.models import load_model

            loaded = load_model(
                model,
                dtype=dtype,
                device=device,
                trust_remote_code=trust_remote_code,
                settings=settings,
                on_progress=on_progress,
            )
        speeds = _measure(loaded, grid, quiet=json_)
    except KeyboardInterrupt:
        print("lydite: interrupted; nothing was measured to the end", file=sys.stderr)
        sys.exit(130)  # returned, it would get a second line, about what can be continued
    if out is not None:
        from lydite.bench.plot import draw

        write_json(out / "bench.json", speeds)
        draw(speeds, out / "bench.png")
    if json_:
        sys.stdout.write(encode(speeds).decode() + "\n")
    else:
        _print(speeds, out)
    return 0


def _numbers(flag: str, text: str) -> tuple[int, ...]:
    try:
        found = tuple(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise UserError(f"{flag} takes whole numbers of 1 or more with commas between, not {text!r}")
    return found


def _settings(pairs: list[str]) -> dict[str, Any]:
    found = parse_set(pairs)
    model: dict[str, Any] = found.pop("model")
    if other := [*found.pop("decoding"), *found]:
        raise UserError(f"--set {other[0]} says nothing to a bench; it takes settings of the model")
    return model


def _make_folder(out: Path | None) -> None:
    """Before anything is measured, not after it."""
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {out}: {error.strerror}; choose another --out") from error


def _measure(model: Any, grid: Grid, *, quiet: bool) -> Speeds:
    console = Console(stderr=True, quiet=quiet)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(one_line(model.info.name), total=None)

        def on_progress(done: int, total: int, what: str) -> None:
            text = f"{one_line(model.info.name)}: {what}"
            progress.update(task, completed=done, total=total, description=text)
            if not console.is_terminal and what != "done":
                console.print(f"{text} ({done} of {total} done)", markup=False, highlight=False, soft_wrap=True)

        return run_bench(model, grid, on_progress=on_progress)


def _print(speeds: Speeds, out: Path | None) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    info = speeds.model
    size = f", {info.parameters / 1e6:,.0f} M parameters" if info.parameters else ""
    console.print(f"{one_line(info.name)}: {info.family}{size}, {info.dtype or 'no dtype'}")
    console.print(f"loaded in {speeds.load_seconds:.1f} s, peak memory {_gib(speeds.peak_memory_bytes)}", end="")
    console.print(f" ({_gib(speeds.loaded_memory_bytes)} when loaded)")
    if speeds.device_memory_bytes:
        console.print(f"peak memory of the device {_gib(speeds.device_memory_bytes)}")
    if speeds.kernel:
        console.print(f"matrix kernel: {speeds.kernel}")
    if speeds.matrix_peak:
        console.print(f"matrix peak here: {speeds.matrix_peak / 1e9:,.0f} GFLOP/s in {info.dtype}")
    console.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("length", "batch", "prompt tok/s", "of peak", "first token", "new tok/s", "of peak"):
        table.add_column(title, justify="right", no_wrap=True)
    for cell in speeds.cells:
        table.add_row(str(cell.length), str(cell.batch), *_cells(cell))
    Console(highlight=False).print(table)
    for note in dict.fromkeys(cell.note for cell in speeds.cells if cell.note):
        console.print(f"-: {one_line(note)}")
    if out is not None:
        console.print(f"wrote {out / 'bench.json'} and bench.png")


def _cells(cell: Cell) -> list[str]:
    first = "-" if cell.first_token is None else f"{cell.first_token:.2f} s"
    prefill = [_speed(cell.prefill), _percent(cell.prefill_fraction)]
    return [*prefill, first, _speed(cell.decode), _percent(cell.decode_fraction)]


def _speed(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%" if value < 0.095 else f"{100 * value:.0f}%"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
