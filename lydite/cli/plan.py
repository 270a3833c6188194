"""`lydite plan`: what a training run needs, before it is run."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console

from lydite.cli.options import value_of
from lydite.errors import UserError
from lydite.report.grid import print_grid
from lydite.report.text import one_line
from lydite.runs import encode
from lydite.training.plan import Machine, Recipe, read_machine, read_recipe
from lydite.training.plan.recipe import is_for_training, read_toml

if TYPE_CHECKING:
    from lydite.training.plan.plan import Plan


def plan(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE]", help="TOML with [model], [data] and [training].")
    ] = None,
    machine: Annotated[
        Path | None,
        typer.Option("--machine", help="TOML with devices, memory, peak, bandwidth. Default: this machine."),
    ] = None,
    utilisation: Annotated[
        float | None, typer.Option(min=0.001, max=1, help="Share of the matrix peak that training reaches.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Run a few steps here for the utilisation (the model must fit).")
    ] = False,
    set_: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="A value of the recipe: training.batch=64 ...")
    ] = [],  # noqa: B006
    json_: Annotated[bool, typer.Option("--json", help="One JSON object instead of the table.")] = False,
) -> int:
    """Say what a training run needs: parameters, operations, memory of a device, time, and what scaling laws say.

    `lydite plan recipe.toml --machine cluster.toml --utilisation 0.4`. Without a recipe, --set says all of it.
    """
    if measure and (machine is not None or utilisation is not None):
        raise UserError("--measure is for this machine; leave out --machine and --utilisation")
    if recipe is None and not set_:
        raise UserError("name a recipe, or say it by --set model.family=gpt2 --set training.batch=16 ...")
    folder = recipe.parent if recipe is not None else Path()
    console = Console(stderr=True, quiet=json_ or not sys.stderr.isatty())
    with console.status("planning", spinner="dots") as status:
        from lydite.training.plan.plan import make_plan

        found = _recipe(recipe, set_)
        where = read_machine(machine) if machine is not None else _here(found)
        if utilisation is not None:
            where = msgspec.structs.replace(where, utilisation=utilisation)
        done = make_plan(found, where, folder=folder)
        if measure:
            status.update("measuring a few steps")
            done = _measured(done, found, where, folder)
    if json_:
        sys.stdout.write(encode(done).decode() + "\n")
    else:
        _print(done)
    return 0


def _recipe(path: Path | None, changes: list[str]) -> Recipe:
    """A recipe of `lydite pretrain`, whose data are read, or one that names only what a plan needs."""
    if path is not None and is_for_training(read_toml(path)):
        from lydite.training.plan.trained import read_trained

        return read_trained(path, changes)
    return read_recipe(path, _changes(changes))


def _here(recipe: Recipe) -> Machine:
    from lydite.engine.machine import this_machine

    dtype = recipe.training.dtype
    found = this_machine(dtype)
    return Machine(name=found.name, devices=found.devices, memory=found.memory, peak={dtype: found.peak})


def _measured(done: "Plan", recipe: Recipe, machine: Machine, folder: Path) -> "Plan":
    """The plan again, with the utilisation of a few real steps."""
    from lydite.training.plan.plan import make_plan
    from lydite.training.plan.trial import try_steps

    assert done.tokens_per_second is not None
    trial = try_steps(recipe, folder=folder)
    share = min(1.0, done.utilisation * trial.tokens_per_second / done.tokens_per_second)
    return make_plan(recipe, msgspec.structs.replace(machine, utilisation=share), folder=folder)


def _changes(pairs: list[str]) -> dict[str, object]:
    found = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair!r} is not KEY=VALUE")
        found[key.strip()] = value_of(text.strip())
    return found


def _print(done: "Plan") -> None:
    shape, training, memory = done.shape, done.training, done.memory
    machine = done.machine
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"{shape.family}, {shape.objective}, on {one_line(machine.name)}", style="bold")
    head = (
        " (tied: among the embeddings)" if shape.head and shape.parameters < shape.multiplied + 2 * shape.head else ""
    )
    rows = [
        ["parameters", f"{shape.parameters:,}", f"{shape.embedding_parameters:,} in embeddings{head}"],
        ["tokens", short(done.tokens), f"{training.steps:,} steps of {training.batch} sequences"],
        ["operations", f"{done.operations:.3g}", f"{3 * done.forward_per_token:.4g} a token, {_how(done)}"],
    ]
    parts = [("weights", memory.weights), ("gradients", memory.gradients), (training.optimizer, memory.optimizer)]
    parts += [("logits", memory.logits), ("program", memory.program)]
    detail = ", ".join(f"{name} {gib(size)}" for name, size in parts)
    if memory.activations is not None:
        detail += f", activations {gib(memory.activations)}"
    fits = "" if memory.total is None or memory.total <= machine.memory else ": it does not fit"
    rows.append(["memory", gib(memory.total), f"of {gib(machine.memory)} a device{fits}"])
    rows.append(["", "", f"micro-batch {done.micro_batch}; {detail}"])
    guess = "assumed" if done.is_assumed else "given"
    peak = machine.peak.get(training.dtype)
    if done.seconds is not None and peak and done.tokens_per_second:
        what = f"{done.tokens_per_second:,.0f} tokens/s: {machine.devices} x {peak / 1e12:,.3g} TFLOP/s at {100 * done.utilisation:.0f}% ({guess})"
        rows.append(["time", duration(done.seconds), what])
    if done.seconds_sending:
        rows.append(["sending", duration(done.seconds_sending), "between devices, if nothing of it is hidden"])
    for title, value, note in rows:
        console.print(f"{title:<11} {value:>13}  {note}")
    console.print()
    grid = [["the same operations, best spent", "parameters", "tokens", "ratio"]]
    for law in done.optima:
        grid.append([law.law, short(law.parameters), short(law.tokens), f"{law.tokens / law.parameters:,.1f}"])
    grid.append(["this run", short(shape.parameters), short(done.tokens), f"{done.tokens / shape.parameters:,.1f}"])
    print_grid(grid, names=1, right=grid[0][1:])
    for note in dict.fromkeys(law.note for law in done.optima if law.note):
        laws = [law.law for law in done.optima if law.note == note]
        console.print(f"note: {', '.join(laws)}: {note}")
    if done.data is not None:
        data = done.data
        console.print(
            f"data: {short(data.unique_tokens)} different tokens, {data.epochs:.2f} epochs, worth {short(data.effective_tokens)} fresh "
            f"ones (Muennighoff 2023)"
        )
    for note in done.notes:
        console.print(f"note: {one_line(note)}")


def _how(done: "Plan") -> str:
    if not done.is_counted:
        return "by the formula 6 N + 12 L a T"
    if done.formula_per_token is None:
        return "counted"
    return f"counted (6 N + 12 L a T: {done.formula_per_token:.4g})"


def short(number: float) -> str:
    """1.24B, 512k ..."""
    for size, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def gib(size: int | None) -> str:
    """Bytes in GiB, small ones in MiB."""
    if size is None:
        return "not known"
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"


def duration(seconds: float) -> str:
    """The two largest units."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    return f"{minutes // 60} h {minutes % 60} min" if hours < 48 else f"{hours // 24:,} d {hours % 24} h"
