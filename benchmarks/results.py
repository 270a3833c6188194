"""docs/results.md from run folders: time, curve and text of every recipe, and the tables of what was judged.

    python benchmarks/results.py --runs runs --page docs/results.md

Between `<!-- run: NAME -->` and `<!-- end -->` goes what runs/NAME/log.jsonl says, with a picture of its curve in a folder of
the page's name; between `<!-- judged: NAME -->` and `<!-- end -->` the table of the evaluations in runs/judged/NAME; between
`<!-- written: NAME/MODEL/TASK -->` and `<!-- end -->` what that model wrote for the first samples of the task. What has not been run
yet is left as it stands. The prose around the marks is written by hand.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from lydite.errors import LyditeError
from lydite.report.table import tables
from lydite.runs import find_runs, read_groups, read_run, read_samples
from lydite.training.log import EvalLine, EventLine, Line, ScoreLine, StepLine, TextLine, read_log
from lydite.types import Completion

MARKED = re.compile(r"<!-- (run|judged|written): ([\w/-]+) -->\n.*?<!-- end -->", re.DOTALL)
MOST_TEXT = 400
"""Characters of a text that are shown."""
MOST_ANSWERS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"))
    chosen = parser.parse_args()
    text = chosen.page.read_text(encoding="utf-8")
    pictures = chosen.page.with_suffix("")

    def filled(match: re.Match[str]) -> str:
        kind, name = match.groups()
        try:
            if kind == "run":
                body = of_run(chosen.runs / name, name, pictures)
            else:
                body = (judged if kind == "judged" else answers)(chosen.runs / "judged" / name)
        except LyditeError as error:
            print(f"{name}: {error}")
            return match.group()
        print(f"{name}: written")
        return f"<!-- {kind}: {name} -->\n\n{body}\n\n<!-- end -->"

    chosen.page.write_text(MARKED.sub(filled, text), encoding="utf-8")


def of_run(folder: Path, name: str, pictures: Path) -> str:
    """Facts, curve and text of one run."""
    lines = read_log(folder)
    steps = [line for line in lines if isinstance(line, StepLine)]
    ends = [line.step for line in lines if isinstance(line, EventLine) and line.what == "finished"]
    if not ends:
        return "Begun, and not finished."
    if not steps:
        return counted(lines)
    parts = [facts(ends[-1], steps, [line for line in lines if isinstance(line, EvalLine)], memory(lines))]
    picture = pictures / f"{name}.png"
    draw(picture, lines)
    parts.append(f"![Loss by step]({pictures.name}/{picture.name})")
    scores = [line for line in lines if isinstance(line, ScoreLine) and line.step == ends[-1]]
    parts += [f"On the way: {score.task} {score.metric} {score.value:.3f}." for score in scores]
    last = [line for line in lines if isinstance(line, TextLine)]
    parts += [written(line) for line in last if line.step == last[-1].step]
    return "\n\n".join(parts)


def counted(lines: Sequence[Line]) -> str:
    """Of a model that is counted and not trained in steps (n-gram): what was counted, its validation, and its texts."""
    parts = [f"{line.what[0].upper()}{line.what[1:]}." for line in lines if isinstance(line, EventLine)][:-1]
    for line in lines:
        if isinstance(line, EvalLine):
            bits = "" if line.bits_per_byte is None else f", {line.bits_per_byte:.3f} bits a byte"
            parts.append(f"Validation: {line.loss:.4f} nats a token{bits}.")
    return "\n\n".join([*parts, *(written(line) for line in lines if isinstance(line, TextLine))])


def memory(lines: Sequence[Line]) -> str:
    """The peak memory of a finished run; nothing where its log has none."""
    peak = max((line.peak_memory_bytes for line in lines if isinstance(line, EventLine)), default=0)
    return f"{peak / 2**30:.1f} GiB" if peak else ""


def facts(end: int, steps: Sequence[StepLine], evals: Sequence[EvalLine], peak_memory: str) -> str:
    """Of a run that ended after step `end`; the last line of its log may be some steps before."""
    last = steps[-1]
    rows = [("steps", f"{end:,}"), ("tokens read", f"{last.tokens:,}")]
    rows.append(("time of training", f"{last.seconds / 60:.1f} minutes"))
    rows.append(("tokens a second", f"{last.tokens / last.seconds:,.0f}"))
    peaks = sorted(line.peak for line in steps if line.peak is not None)
    rows += [("of the matrix peak", f"{peaks[len(peaks) // 2]:.0%}")] if peaks else []
    rows += [("peak memory", peak_memory)] if peak_memory else []
    if evals:
        rows.append(("validation loss at the end", f"{evals[-1].loss:.4f}"))
        rows.append(("the lowest", f"{min(line.loss for line in evals):.4f}"))
        bits = [line.bits_per_byte for line in evals if line.bits_per_byte is not None]
        rows += [("bits a byte, at the end", f"{bits[-1]:.3f}")] if bits else []
    return "\n".join(["| | |", "| --- | ---: |", *(f"| {key} | {value} |" for key, value in rows)])


def written(line: TextLine) -> str:
    """A text as a quotation: prompt in bold, line breaks kept, nothing of it read as markup."""
    text = line.text[:MOST_TEXT]
    shown = "\n".join(f"    {row}" for row in f"{line.prompt}|{text}".splitlines())
    return f"What it wrote{f' after step {line.step:,}' if line.step > 1 else ''} (the prompt ends at `|`):\n\n{shown}"


def draw(path: Path, lines: Sequence[Line]) -> None:
    """Training and validation loss by step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.8), dpi=110, layout="constrained")
    axes = figure.subplots()
    steps = [line for line in lines if isinstance(line, StepLine)]
    evals = [line for line in lines if isinstance(line, EvalLine)]
    axes.plot(
        [line.step for line in steps], [line.loss for line in steps], color="#c9b37e", linewidth=0.8, label="training"
    )
    if evals:
        axes.plot([line.step for line in evals], [line.loss for line in evals], "o-", color="#7a5c00", markersize=3)
        axes.lines[-1].set_label("validation")
    shown = [line.loss for line in steps[len(steps) // 50 :]] + [line.loss for line in evals]
    axes.set_ylim(min(shown) * 0.97, max(shown) * 1.03)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats")
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def answers(folder: Path) -> str:
    """What was given, what the model wrote and what was meant, of the samples whose ids come first: nothing is picked."""
    records = sorted(read_samples(folder), key=lambda record: (len(record.id), record.id))[:MOST_ANSWERS]
    parts = []
    for record in records:
        texts = [output.text for output in record.outputs if isinstance(output, Completion)]
        shown = [("given", record.sample.input), *(("wrote", text) for text in texts)]
        shown += [("meant", target) for target in record.sample.targets[:1]]
        parts += [f"    {label}  {' '.join(text.split())[:MOST_TEXT]}" for label, text in shown] + [""]
    return "\n".join([f"What it wrote for the first {len(records)}, beside what was meant:", "", *parts]).strip()


def judged(out: Path) -> str:
    """The table of all finished evaluations in `out`, with the signatures of what is in no group."""
    runs, groups = [read_run(folder) for folder in find_runs(out)], read_groups(out)
    grouped = {f"| {name}@" for group in groups for name in (*group.members, *group.parts)}
    lines = tables(runs, groups, format="markdown").strip().splitlines()
    return "\n".join(
        line for line in lines if not (line.startswith("- ") and any(n in line.replace("\\", "") for n in grouped))
    )


if __name__ == "__main__":
    main()
