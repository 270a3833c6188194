"""From a state of the benchmark to the tables and the plot of docs/benchmarks.md."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from speed import plot
from speed.measure import Measurement, State, save_state
from speed.rows import DTYPES, ROWS, Row

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
GIB = 2**30


def of(state: State, row: str, dtype: str, system: str) -> list[Measurement]:
    """Measurements of the whole row."""
    return [m for m in state.measurements if (m.row, m.dtype, m.system, m.tuning) == (row, dtype, system, False)]


def middle(found: Sequence[Measurement], name: str) -> float | None:
    """Median over repeats; None where nothing finished."""
    values = [value for m in found if (value := getattr(m, name)) is not None and m.status == "done"]
    return median(values) if values else None


def ratio(theirs: float | None, ours: float | None) -> float | None:
    return theirs / ours if theirs and ours else None


def flops(state: State, row: str, *, generated: int = 0) -> float:
    """Floating-point operations that a row needs: every distinct position through the body's weights once, every distinct
    scored position (or new token) through the head's; attention itself is left out."""
    work = state.work[row]
    positions = work["positions"] + generated
    return 2.0 * (positions * work["body_weights"] + (work["scored_positions"] + generated) * work["head_weights"])


def fraction(state: State, row: str, dtype: str, system: str) -> float | None:
    """The share of the measured matrix peak that a row reached, counted by the operations that it needs."""
    found = of(state, row, dtype, system)
    seconds = middle(found, "seconds")
    if not seconds:
        return None
    generated = int(middle(found, "tokens_generated") or 0)
    return flops(state, row, generated=generated) / seconds / state.peaks[dtype]


def summary(state: State, row: Row, dtype: str, system: str) -> str:
    """One line for the terminal."""
    ours, theirs = (of(state, row.name, dtype, name) for name in (system, "lm-eval"))
    gain = ratio(middle(theirs, "seconds"), middle(ours, "seconds"))
    whole = ratio(middle(theirs, "whole_seconds"), middle(ours, "whole_seconds"))
    aim = row.aim if dtype == "float32" else max(1.0, row.aim / 2)
    words = [f"{system}: {_times(gain)} (aim {aim:g}), whole process {_times(whole)}"]
    words.append(f"{_percent(fraction(state, row.name, dtype, system))} of the peak")
    found = state.comparisons.get(f"{row.name} {dtype} {system}")
    if found:
        words.append(f"largest difference {_small(found.largest)}, {found.flips} flips, {found.failed} failed")
    return ", ".join(words)


# ------------------------------------------------------------------------------------------- cells


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}x" if value < 100 else f"{value:.0f}x"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}%"


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _gib(found: Sequence[Measurement]) -> str:
    done = [m for m in found if m.status == "done"]  # a batch size that was killed does not stand for the row
    sizes = [m.peak_bytes for m in done or found if m.peak_bytes]
    return f"{max(sizes) / GIB:.1f}" if sizes else "-"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], left: int = 2) -> str:
    """A markdown table whose first `left` columns are text and whose others are numbers."""
    rule = ["---" if i < left else "---:" for i in range(len(titles))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [titles, rule, *rows])


# ------------------------------------------------------------------------------------------ tables


def measured(state: State, kinds: Sequence[str]) -> list[tuple[Row, str]]:
    """Rows of these kinds with at least one measurement, by dtype."""
    return [
        (row, dtype)
        for dtype in DTYPES
        for row in ROWS
        if row.kind in kinds and any(of(state, row.name, dtype, name) for name in ("default", "auto", "lm-eval"))
    ]


SCORING = ("choice", "last_word", "rolling", "generate")


def times(state: State) -> str:
    rows = []
    for row, dtype in measured(state, SCORING):
        names = ("lm-eval", "default", "auto", "fastest")
        peer, default, auto, fastest = (of(state, row.name, dtype, name) for name in names)
        theirs = middle(peer, "seconds")
        done = [m.batch for m in peer if m.status == "done"]
        status = f"{_seconds(theirs)} (batch {done[0]})" if done else _why(state, row, dtype)
        cells = [row.title, f"{row.model}, {dtype}", status]
        for found in (default, auto, fastest):
            ours = middle(found, "seconds")
            cells += [_seconds(ours), _times(ratio(theirs, ours))]
        wholes = [middle(found, "whole_seconds") for found in (peer, auto)]
        rows.append([*cells, *map(_seconds, wholes), _times(ratio(*wholes))])
    titles = ["work", "model", "lm-eval, s", "default kernel, s", "times", "chosen kernel, s", "times"]
    titles += ["bfloat16 products allowed, s", "times"]
    return _table([*titles, "whole: lm-eval, s", "whole: Lydite, s", "times"], rows)


def _why(state: State, row: Row, dtype: str) -> str:
    """Why the peer has no time: how its trials ended."""
    tried = [m for m in state.measurements if (m.row, m.dtype, m.system) == (row.name, dtype, "lm-eval")]
    reasons = dict.fromkeys(f"batch {m.batch}: {m.status}" for m in tried if m.status != "done")
    return "; ".join(reasons) or "-"


def work(state: State) -> str:
    rows = []
    for row, dtype in measured(state, SCORING):
        peer, auto = (of(state, row.name, dtype, name) for name in ("lm-eval", "auto"))
        found = state.work[row.name]
        generated = int(middle(auto, "tokens_generated") or 0)
        kernel = auto[0].kernel.split(" (")[0] if auto else "-"
        rows.append(
            [
                row.title,
                f"{row.model}, {dtype}",
                f"{found['naive_positions']:,}",
                f"{found['positions']:,}",
                f"{int(middle(auto, 'tokens_computed') or 0):,}",
                f"{generated:,}" if generated else "-",
                f"{flops(state, row.name, generated=generated) / 1e9:,.0f}",
                kernel,
                _percent(fraction(state, row.name, dtype, "auto")),
                _gib(peer)
                if peer
                else _gib(
                    [m for m in state.measurements if (m.row, m.dtype, m.system) == (row.name, dtype, "lm-eval")]
                ),
                _gib(auto),
            ]
        )
    titles = ["work", "model", "positions", "distinct", "computed", "new tokens", "GFLOP", "kernel", "of the peak"]
    return _table([*titles, "lm-eval, GiB", "Lydite, GiB"], rows)


def numbers(state: State) -> str:
    rows = []
    for row, dtype in measured(state, SCORING):
        for system in ("default", "auto", "fastest"):
            found = state.comparisons.get(f"{row.name} {dtype} {system}")
            if found is None:
                continue
            metrics = "; ".join(
                f"{name} {found.theirs[name]:.4f} / {value:.4f}" if name in found.theirs else f"{name} - / {value:.4f}"
                for name, value in found.ours.items()
            )
            flips = f"{found.flips}" if row.kind != "rolling" else "-"
            margin = "-" if found.flip_margin is None else f"{found.flip_margin:.1e}"
            rows.append(
                [
                    row.title,
                    f"{row.model}, {dtype}, {system}",
                    metrics,
                    f"{found.requests:,}",
                    str(found.failed),
                    _small(found.largest),
                    flips,
                    margin,
                ]
            )
    titles = ["work", "model", "metrics: lm-eval / Lydite", "requests", "failed", "largest difference, nats"]
    return _table([*titles, "flips", "widest flip, nats"], rows, left=3)


def decoding(state: State) -> str:
    rows = []
    for row, dtype in measured(state, ("decode",)):
        peer = of(state, row.name, dtype, "lm-eval")
        names = ("lm-eval", "default", "auto", "fastest")
        speeds = [_speed(of(state, row.name, dtype, name)) for name in names]
        found = state.comparisons.get(f"{row.name} {dtype} auto")
        same = "-" if found is None or not peer else f"{found.requests - found.flips} of {found.requests}"
        cells = [f"batch {row.batch}", f"{row.model}, {dtype}", *("-" if s is None else f"{s:,.0f}" for s in speeds)]
        auto = of(state, row.name, dtype, "auto")
        rows.append(
            [
                *cells,
                _times(ratio(speeds[2], speeds[0])),
                _percent(fraction(state, row.name, dtype, "auto")),
                same,
                _gib(peer),
                _gib(auto),
            ]
        )
    titles = [
        "prompts at a time",
        "model",
        "generate, tokens/s",
        "default kernel, tokens/s",
        "chosen kernel, tokens/s",
        "bfloat16 products allowed, tokens/s",
        "times (chosen)",
    ]
    return _table([*titles, "of the peak", "same texts", "generate, GiB", "Lydite, GiB"], rows)


def _speed(found: Sequence[Measurement]) -> float | None:
    """New tokens a second, the reading of the prompts included."""
    tokens, seconds = middle(found, "tokens_generated"), middle(found, "seconds")
    return tokens / seconds if tokens and seconds else None


def growth(state: State) -> str:
    rows = []
    for row, dtype in measured(state, ("growth",)):
        found = of(state, row.name, dtype, "auto")
        positions, seconds = state.work[row.name]["positions"], middle(found, "seconds")
        speed = "-" if not seconds else f"{positions / seconds:,.0f}"
        share = _percent(fraction(state, row.name, dtype, "auto"))
        rows.append(
            [row.title, f"{row.model}, {dtype}", f"{positions:,}", _seconds(seconds), speed, share, _gib(found)]
        )
    return _table(["work", "model", "distinct positions", "s", "positions/s", "of the peak", "peak memory, GiB"], rows)


def tuning(state: State) -> str:
    """What the peer's batch size was chosen from."""
    rows = []
    for row, dtype in measured(state, SCORING):
        tried = [m for m in state.measurements if m.tuning and (m.row, m.dtype) == (row.name, dtype)]
        cells = [
            f"{m.batch}: {_seconds(m.seconds)} s" if m.seconds is not None else f"{m.batch}: {m.status}" for m in tried
        ]
        if not tried:
            continue
        part = "all" if row.tune_docs is None else str(min(row.tune_docs, state.limit or row.tune_docs))
        rows.append([row.title, f"{row.model}, {dtype}", part, "; ".join(cells)])
    return _table(["work", "model", "documents", "lm-eval by batch size"], rows, left=4)


def page(state: State) -> str:
    """Everything between the markers."""
    facts = [f"{name} {value}" for name, value in (state.machine | state.versions).items()]
    peaks = ", ".join(f"{name} {peak / 1e9:,.0f} GFLOP/s" for name, peak in state.peaks.items())
    repeats = max((m.repeat for m in state.measurements), default=0) + 1
    trial = f"**A trial with at most {state.limit} documents a row, not a measurement.** " if state.limit else ""
    parts = [
        f"{trial}Machine and versions: {'; '.join(facts)}. Measured matrix peak: {peaks}. Runs of each: {repeats} (medians).",
        f"Command: `{_command(state.command)}`",
        "![Times faster than the peer, and growth](benchmarks.png)",
        "### Time\n\n" + times(state),
        "### Work and memory\n\n" + work(state),
        "### The numbers\n\n" + numbers(state),
        "### Decoding\n\n" + decoding(state),
        "### Growth\n\n" + growth(state),
        "### The peer's batch size\n\n" + tuning(state),
    ]
    return "\n\n".join(parts)


def _command(command: str) -> str:
    """The command without the folders of the machine that it ran on."""
    return " ".join(Path(word).name if word.startswith("/") else word for word in command.split())


def write_docs(state: State, folder: Path) -> None:
    """Replaces what stands between the markers of benchmarks.md, and writes benchmarks.json and benchmarks.png."""
    path = folder / "benchmarks.md"
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} has no lines {BEGIN} and {END}")
    plot.draw(state, folder / "benchmarks.png")
    path.write_text(f"{before}{BEGIN}\n\n{page(state)}\n\n{END}{after}", encoding="utf-8")
    save_state(folder / "benchmarks.json", state)
