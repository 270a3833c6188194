"""`lydite pretrain`: a recipe becomes a model."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from lydite.errors import UserError
from lydite.report.text import one_line
from lydite.runs import safe_name
from lydite.training.log import EvalLine, EventLine, Line, ScoreLine, StepLine, TextLine
from lydite.training.page import write_page
from lydite.training.recipe import Recipe, read_recipe
from lydite.training.trackers import Trackers

if TYPE_CHECKING:
    from lydite.training.loop import OnEval


def pretrain(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A TOML file; recipes/ has some to start from.")],
    set_: Annotated[
        list[str],
        typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Overrides the recipe, e.g. training.max_steps=100."),
    ] = [],  # noqa: B006
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The run's folder; the same one continues. runs/<recipe>.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps ...")] = "cpu",
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Nothing but what goes wrong, and the model's folder.")
    ] = False,
) -> int:
    """Train a language model from a recipe; the same command continues a run that was interrupted.

    `lydite pretrain recipes/shakespeare_char.toml --set data.text=tinyshakespeare.txt`
    """
    chosen = read_recipe(recipe, set_)
    folder = out or Path("runs") / safe_name(recipe.stem)
    leads = os.environ.get("RANK", "0") == "0"
    screen = Screen(chosen, quiet=quiet or not leads)
    trackers = Trackers(chosen.log.trackers if leads else [], folder, chosen)

    heard = False

    def on_line(line: Line) -> None:
        nonlocal heard
        heard = True
        screen.show(line)
        trackers.show(line)
        if isinstance(line, EvalLine) or (isinstance(line, EventLine) and line.what == "finished"):
            write_page(folder, recipe.stem)

    with screen:
        from lydite.training.start import pretrain as run

        try:
            model = run(
                chosen,
                folder,
                device=device,
                on_eval=judge(chosen, folder),
                on_line=on_line,
                say=screen.say,
                measure=True,
            )
        finally:
            trackers.close()
            # A folder that was refused keeps the page of its own run; and a full disk that takes no page is told of by its cause.
            if leads and heard:
                with contextlib.suppress(UserError):
                    write_page(folder, recipe.stem)
    if leads:
        print(model)
        if not quiet:
            screen.say(f"the curves: {folder / 'training.html'}; to judge it: lydite evaluate {model} --tasks mini")
    return 0


def judge(recipe: Recipe, folder: Path) -> "OnEval | None":
    """What evaluates and writes during training: None where the recipe asks for neither."""
    table = recipe.eval
    if not table.tasks and not table.prompts:
        return None
    from lydite.tasks import load_tasks

    tasks, _ = load_tasks(list(table.tasks)) if table.tasks else ([], None)

    def on_eval(checkpoint: Path, step: int) -> Sequence[Line]:
        """What cannot be judged does not end the training that it was to judge."""
        try:
            return judged(checkpoint, step)
        except UserError as error:
            return [EventLine(step=step, what=f"not judged: {error}")]

    def judged(checkpoint: Path, step: int) -> Sequence[Line]:
        from lydite.evaluate import evaluate
        from lydite.models import load_model
        from lydite.types import Completion, Decoding, GenerateRequest

        model = load_model(str(checkpoint))
        lines: list[Line] = []
        for task in tasks:
            run = evaluate(model, task, out=folder / "judged" / f"step-{step:08d}", limit=table.limit or None)
            for estimate in run.estimates[:1]:
                if estimate.value is None:
                    what = f"{task.name} {estimate.metric}: no score, {estimate.n_failed} samples failed"
                    lines.append(EventLine(step=step, what=what))
                else:
                    low, high = estimate.interval or (None, None)
                    lines.append(
                        ScoreLine(
                            step=step, task=task.name, metric=estimate.metric, value=estimate.value, low=low, high=high
                        )
                    )
        decoding = Decoding(max_new_tokens=table.max_new_tokens, do_sample=True, temperature=table.temperature)
        requests = [
            GenerateRequest(sample_id="prompt", index=number, prompt=prompt, decoding=decoding)
            for number, prompt in enumerate(table.prompts)
        ]
        if requests and "generate" not in model.info.can:
            raise UserError("eval.prompts: this model cannot write; leave them out")
        for number, output in sorted(model.answer(requests), key=lambda pair: pair[0]):
            if isinstance(output, Completion):
                lines.append(TextLine(step=step, prompt=table.prompts[number], text=output.text))
        return lines

    return on_eval


class Screen:
    """The progress line on standard error, and a line for each validation; plain lines where it is no terminal."""

    EVERY = 100
    """Steps between plain lines."""

    def __init__(self, recipe: Recipe, *, quiet: bool) -> None:
        self.steps = recipe.training.max_steps
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None, complete_style="yellow", finished_style="yellow"),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
            expand=True,
            disable=quiet or not self.console.is_terminal,
        )
        self.bar: TaskID | None = None

    def __enter__(self) -> "Screen":
        self.progress.start()
        self.bar = self.progress.add_task("preparing", total=self.steps, numbers="")
        return self

    def __exit__(self, *details: object) -> None:
        self.progress.stop()

    def say(self, line: str) -> None:
        self.console.print(one_line(line), markup=False, soft_wrap=True)

    def show(self, line: Line) -> None:
        """One line of the log."""
        words = self._step(line) if isinstance(line, StepLine) else _words(line)
        if words:
            self.say(words)

    def _step(self, line: StepLine) -> str:
        peak = f" · {line.peak:.0%} of peak" if line.peak is not None else ""
        numbers = f"loss {line.loss:.3f} · lr {line.learning_rate:.2g} · {line.tokens_per_second:,.0f} tok/s{peak}"
        assert self.bar is not None
        self.progress.update(self.bar, completed=line.step, description="training", numbers=numbers)
        if not self.console.is_terminal and (line.step % self.EVERY == 0 or line.step in (1, self.steps)):
            return f"step {line.step} of {self.steps}: {numbers}"
        return ""


def _words(line: EvalLine | ScoreLine | TextLine | EventLine) -> str:
    """What a person reads of it."""
    if isinstance(line, EvalLine):
        bits = f", {line.bits_per_byte:.3f} bits per byte" if line.bits_per_byte is not None else ""
        best = " (best so far)" if line.is_best else ""
        what = f"validation loss {line.loss:.4f}{bits}{best}, {line.seconds:.1f} s"
    elif isinstance(line, ScoreLine):
        interval = f" [{line.low:.3f}, {line.high:.3f}]" if line.low is not None and line.high is not None else ""
        what = f"{line.task} {line.metric} {line.value:.3f}{interval}"
    elif isinstance(line, TextLine):
        what = f"{line.prompt}|{line.text[:160]}"
    else:
        what = line.what
    return f"step {line.step}: {what}"
