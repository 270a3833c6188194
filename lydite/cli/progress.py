"""One progress bar on standard error: samples of all tasks of a model, tokens a second, time left."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from lydite.evaluate import Progress as Report
from lydite.report.text import one_line


class _Count(MofNCompleteColumn):
    """Samples done of all; nothing while a model loads, which is counted in bytes."""

    def render(self, task: Task) -> Text:
        return Text() if task.fields.get("loading") else super().render(task)


class Bar:
    """A context manager; nothing is drawn when `quiet`, and plain lines where standard error is no terminal."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None, complete_style="yellow", finished_style="yellow"),
            _Count(),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
            expand=True,
            disable=not self.console.is_terminal,
        )
        self.bar: TaskID | None = None
        self.model = ""
        self.sizes: Mapping[str, int] = {}
        self.done: dict[str, int] = {}
        self.started = 0.0
        self.first_tokens: int | None = None

    def __enter__(self) -> "Bar":
        self.progress.start()
        return self

    def __exit__(self, *details: Any) -> None:
        self.progress.stop()

    @contextmanager
    def loading(self, spec: str) -> Iterator[Callable[[str, int, int], None]]:
        """A line while a model is fetched, converted and read; yields the `on_progress` of load_model."""
        line = self.progress.add_task(f"loading {spec}", total=None, speed="", loading=True)
        last = ""

        def on_progress(what: str, done: int, total: int) -> None:
            nonlocal last
            size = f"{done / 1e6:,.0f} MB" if total else ""
            self.progress.update(line, description=what, total=total or None, completed=done, speed=size)
            if what != last and not self.console.is_terminal:
                self.console.print(what, markup=False, highlight=False, soft_wrap=True)
            last = what

        try:
            yield on_progress
        finally:
            self.progress.remove_task(line)

    def begin(self, model: str, sizes: Mapping[str, int]) -> None:
        """A new model; `sizes` are the samples of each task."""
        if self.bar is not None:
            self.progress.remove_task(self.bar)
        self.model, self.sizes, self.done = model, sizes, {}
        self.started, self.first_tokens = time.perf_counter(), None
        self.bar = self.progress.add_task(one_line(model), total=sum(sizes.values()), speed="")

    def update(self, task: str) -> Callable[[Report], None]:
        """The `on_progress` of one task."""

        def on_progress(report: Report) -> None:
            assert self.bar is not None
            self.done[task] = report.done
            tokens = report.usage.tokens_requested + report.usage.tokens_generated
            if self.first_tokens is None:
                self.first_tokens = tokens
            speed = (tokens - self.first_tokens) / max(time.perf_counter() - self.started, 1e-9)
            self.progress.update(
                self.bar,
                completed=sum(self.done.values()),
                description=one_line(f"{self.model} · {task}"),
                speed=f"{speed:,.0f} tok/s" if speed >= 1 else "",
            )
            if report.done == report.total and not self.console.is_terminal:
                number = list(self.sizes).index(task) + 1
                self.console.print(
                    f"{one_line(self.model)}: {one_line(task)} ({number} of {len(self.sizes)}), {report.total} samples, "
                    f"{time.perf_counter() - self.started:.0f} s",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
                sys.stderr.flush()

        return on_progress
