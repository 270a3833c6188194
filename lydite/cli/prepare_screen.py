"""What `lydite prepare` shows: a bar with documents and megabytes a second, then what each step did."""

import time
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from lydite.data.corpus import CorpusInfo
from lydite.data.prepare.report import Report
from lydite.report.grid import print_grid
from lydite.report.text import one_line

_STEPS = {
    "read": "1 of 4: read and clean",
    "duplicates": "2 of 4: duplicates and mixture",
    "encode": "3 of 4: tokens",
    "merge": "4 of 4: shards",
}


class Screen:
    """A context manager; plain lines where standard error is no terminal, nothing when `quiet`."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None, complete_style="yellow", finished_style="yellow"),
            TaskProgressColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            expand=True,
            disable=not self.console.is_terminal,
        )
        self.step, self.bar = "", TaskID(0)
        self.started, self.last = time.perf_counter(), ""

    def __enter__(self) -> "Screen":
        self.progress.start()
        return self

    def __exit__(self, *details: Any) -> None:
        self._end()
        self.progress.stop()

    def update(self, step: str, done: int, total: int | None, documents: int) -> None:
        """The `on_progress` of prepare."""
        if step != self.step:
            self._end()
            self.step = step
            self.bar = self.progress.add_task(_STEPS[step], total=total, speed="")
        seconds = max(time.perf_counter() - self.started, 1e-6)
        self.last = f"{documents:,} documents" + (f", {done / 1e6:,.1f} MB" if done else "")
        speed = f"{documents / seconds:,.0f} documents/s" + (f" {done / 1e6 / seconds:,.1f} MB/s" if done else "")
        # Sizes of compressed files are guesses: the bar waits at its end rather than run past it.
        self.progress.update(self.bar, completed=min(done, total or done), total=total, speed=speed)

    def _end(self) -> None:
        if not self.step:
            return
        self.progress.remove_task(self.bar)
        if not self.console.is_terminal:
            seconds = time.perf_counter() - self.started
            line = f"{_STEPS[self.step]}: {self.last}, {seconds:.1f} s"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self.step, self.started = "", time.perf_counter()


def print_report(out: Path, info: CorpusInfo) -> None:
    """Two tables and a few lines: what each source lost and why, what was written, how often parts are used."""
    report = msgspec.convert(info.report, Report)
    _print_removed(report)
    print()
    grid = [["source", "split", "documents", "MB", "tokens", "used"]]
    for name, source in report.sources.items():
        for split, (documents, size, tokens) in source.written.items():
            if documents:
                used = _times(report.repeats.get(name)) if split == "train" else ""
                grid.append([one_line(name), split, f"{documents:,}", _mb(size), f"{tokens:,}", used])
    print_grid(grid, names=2, right=grid[0][2:])
    by_language = set(report.repeats) - set(report.sources)
    if by_language:
        print("used: " + ", ".join(f"{one_line(part)} {_times(report.repeats[part])}" for part in sorted(by_language)))
    if any(rate > 1 for rate in report.repeats.values()):
        print("used: how often the documents of a part are repeated; 1.5: half of them once more, at other places")
    _print_lines(report)
    print(_summary(out, info))


def _print_removed(report: Report) -> None:
    rows: list[tuple[str, dict[str, list[int]]]] = [("read", {n: s.read for n, s in report.sources.items()})]
    cut = {n: [s.cut, 0] for n, s in report.sources.items() if s.cut}
    rows += [("+ cut in pieces", cut)] if cut else []
    reasons = sorted({reason for s in report.sources.values() for reason in s.removed})
    rows += [(f"- {r}", {n: s.removed[r] for n, s in report.sources.items() if r in s.removed}) for r in reasons]
    rows.append(("= kept", {name: source.kept for name, source in report.sources.items()}))
    names = list(report.sources)
    shown = names if len(names) <= 4 else []
    grid = [["documents", *map(one_line, shown), "all", "MB"]]
    for title, values in rows:
        cells = [f"{values[name][0]:,}" if name in values else "" for name in shown]
        size = sum(pair[1] for pair in values.values())
        total = sum(pair[0] for pair in values.values())
        grid.append([one_line(title), *cells, f"{total:,}", _mb(size) if size else ""])
    print_grid(grid, names=1, right=grid[0][1:])


def _print_lines(report: Report) -> None:
    changed = sum(source.normalized for source in report.sources.values())
    if changed:
        print(f"{changed:,} documents changed by normalisation (normal form, line breaks, control characters)")
    special = sum(source.special for source in report.sources.values())
    if special:
        print(f"{special:,} special tokens within documents of tokens taken out")
    languages: dict[str, int] = {}
    for source in report.sources.values():
        for language, count in source.languages.items():
            languages[language] = languages.get(language, 0) + count
    if languages:
        most = sorted(languages.items(), key=lambda item: -item[1])
        print(
            "languages: "
            + ", ".join(f"{code} {count:,}" for code, count in most[:12])
            + (" ..." if len(most) > 12 else "")
        )
    for task, count in report.overlap_texts.items():
        short = report.overlap_too_short.get(task, 0)
        print(
            f"{one_line(task)}: {count:,} texts looked for"
            + (f", {short:,} of them too short to be found" if short else "")
        )
    if report.num_without_tokens:
        print(f"{report.num_without_tokens:,} documents left out, since the tokenizer turns them into nothing")
    for note in report.notes:
        print(one_line(note))


def _summary(out: Path, info: CorpusInfo) -> str:
    parts = []
    for name, split in info.splits.items():
        parts.append(f"{name} {split.num_documents:,} documents, {split.num_tokens:,} tokens")
    train = info.splits["train"]
    return (
        f"{out}: {'; '.join(parts)}; {train.num_bytes / train.num_tokens:.2f} bytes a token, vocabulary {info.vocab_size:,}, "
        f"{info.dtype}, hash {info.hash[:12]}"
    )


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}" if size >= 50_000 else f"{size / 1e6:,.3f}"


def _times(rate: float | None) -> str:
    return "" if rate is None else "once" if rate == 1 else f"{rate:.2f} times"
