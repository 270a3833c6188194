"""RUN/training.html: the curves of a training run and what the model wrote on the way, in one file without a network.

Everything comes from log.jsonl. What a model or a recipe says reaches the page through the template, which escapes it; the
content-security policy admits no script at all. No torch here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

import lydite
from lydite.report.svg import MUTED, RULE, drawing, model_color
from lydite.report.text import one_line
from lydite.runs import write_bytes
from lydite.training.log import EvalLine, EventLine, Line, ScoreLine, StepLine, TextLine, read_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
STYLE = HERE.parent / "report" / "page.css"
WIDTH, HEIGHT = 540, 250
MOST_POINTS = 1200
"""Of a curve; of more, each pixel's mean stands for its steps."""
MOST_TEXTS = 40
LATE = 20
"""Steps of the log whose mean is the training loss that is shown."""
STEEP = ("loss", "parts", "norm")
"""Curves whose first steps are far above the rest, and may leave the picture."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

Points = list[tuple[float, float]]


def write_page(folder: Path, name: str) -> Path:
    """Makes the page of the run in `folder`; RunError where there is no log."""
    path = folder / "training.html"
    write_bytes(path, render(name, read_log(folder)).encode("utf-8", "replace"))
    return path


def render(name: str, lines: Sequence[Line]) -> str:
    """The page as text."""
    steps = [line for line in lines if isinstance(line, StepLine)]
    evals = [line for line in lines if isinstance(line, EvalLine)]
    texts = [line for line in lines if isinstance(line, TextLine)]
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(
        name=one_line(name),
        version=lydite.__version__,
        policy=POLICY,
        style=STYLE.read_text("utf-8"),
        facts=_facts(steps, evals),
        curves=_curves(steps, evals),
        scores=_scores([line for line in lines if isinstance(line, ScoreLine)]),
        texts=_thin(texts, MOST_TEXTS),
        num_texts=len(texts),
        events=[line for line in lines if isinstance(line, EventLine)],
        validations=evals,
    )


def _facts(steps: Sequence[StepLine], evals: Sequence[EvalLine]) -> list[tuple[str, str]]:
    """What a reader wants first, in words."""
    facts = [] if evals else [("steps", "none yet")]
    if steps:
        last = steps[-1]
        facts = [("steps", f"{last.step:,}"), ("tokens read", f"{last.tokens:,}"), ("time", _time(last.seconds))]
        facts.append(("speed", f"{last.tokens / max(last.seconds, 1e-9):,.0f} tokens/s"))
        peaks = [line.peak for line in steps if line.peak is not None]
        if peaks:
            facts.append(("of the matrix peak", f"{sorted(peaks)[len(peaks) // 2]:.0%}"))
        late = [line.loss for line in steps[-LATE:]]  # one step alone says little
        facts.append(("training loss", f"{sum(late) / len(late):.3f}"))
    if evals:
        best = min(evals, key=lambda line: line.loss)
        facts.append(("validation loss", f"{best.loss:.4f} at step {best.step:,}"))
        if best.bits_per_byte is not None:
            facts.append(("bits per byte", f"{best.bits_per_byte:.3f}"))
    return facts


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _curves(steps: Sequence[StepLine], evals: Sequence[EvalLine]) -> list[dict[str, str]]:
    """One drawing a quantity."""
    loss: dict[str, Points] = {"training": [(line.step, line.loss) for line in steps]}
    if evals:
        loss["validation"] = [(line.step, line.loss) for line in evals]
    wanted: list[tuple[str, str, dict[str, Points]]] = [("loss", "Loss, nats", loss)]
    names = sorted({name for line in steps for name in line.parts})
    if len(names) > 1:
        parts: dict[str, Points] = {
            name: [(line.step, line.parts[name]) for line in steps if name in line.parts] for name in names
        }
        wanted.append(("parts", "Parts of the loss, nats", parts))
    bits = [(float(line.step), line.bits_per_byte) for line in evals if line.bits_per_byte is not None]
    if bits:
        wanted.append(("bits", "Bits per byte, validation", {"validation": bits}))
    wanted += [
        ("rate", "Learning rate", {"": [(line.step, line.learning_rate) for line in steps]}),
        ("norm", "Gradient norm, before clipping", {"": [(line.step, line.grad_norm) for line in steps]}),
        ("speed", "Tokens a second", {"": [(line.step, line.tokens_per_second) for line in steps]}),
    ]
    return [
        {"title": title, "svg": _curve(name, title, lines), "legend": ""}
        for name, title, lines in wanted
        if any(len(points) > 1 for points in lines.values())
    ]


def _curve(name: str, title: str, lines: dict[str, Points]) -> str:
    def draw(figure: "Figure") -> None:
        axes = figure.add_axes((0.11, 0.14, 0.86, 0.82))
        values = []
        for position, (label, points) in enumerate(lines.items()):
            thin = _means(points, MOST_POINTS)
            values += [y for _, y in thin[len(thin) // 50 if name in STEEP else 0 :]]
            few = len(thin) <= 60
            axes.plot(
                *zip(*thin, strict=True),
                color=model_color(position),
                linewidth=1.1 if not few else 1.6,
                marker="o" if few else None,
                markersize=3,
                label=label or None,
            )
        _frame(axes, values)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=10, labelcolor="linecolor", loc="upper right")

    return drawing(name, f"{title} by step", WIDTH, HEIGHT, draw)


def _frame(axes: Any, values: Sequence[float]) -> None:
    """Quiet axes around `values`."""
    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_xlabel("step", color=MUTED)
    axes.margins(x=0.01)
    if values and max(values) >= 1000:
        axes.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    if values:
        low, high = min(values), max(values)
        room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
        axes.set_ylim(low - room, high + room)


def _means(points: Points, most: int) -> Points:
    """At most `most` points, each the mean of neighbours."""
    size = -(-len(points) // most)
    groups = [points[i : i + size] for i in range(0, len(points), size)] if size > 1 else [[p] for p in points]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _thin(texts: Sequence[TextLine], most: int) -> list[TextLine]:
    """Evenly spread over the run, the first and the last among them."""
    if len(texts) <= most:
        return list(texts)
    return [texts[round(i * (len(texts) - 1) / (most - 1))] for i in range(most)]


def _scores(lines: Sequence[ScoreLine]) -> list[dict[str, Any]]:
    """A row a task: its values by step, None at a step where it could not be judged."""
    steps = sorted({line.step for line in lines})
    found = {(line.task, line.metric, line.step): line for line in lines}
    return [
        {
            "task": task,
            "metric": metric,
            "steps": steps,
            "values": [found.get((task, metric, step)) for step in steps],
        }
        for task, metric in dict.fromkeys((line.task, line.metric) for line in lines)
    ]
