"""OUT/report.html: everything that a run folder says, in one file that needs no network.

Whatever a model or a data file says reaches the page in one of two ways only: through the template, which escapes it,
or as JSON whose angle brackets are escaped, which page.js puts into text nodes. A content-security policy admits no
script but page.js, by its hash.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup

import lydite
from lydite.report import breakdown, facts, summary, text
from lydite.report.cards import Card, task_cards, within_budget
from lydite.report.digest import Digest, complete, digest
from lydite.report.plots import MARKERS
from lydite.report.rows import label_models, model_names, rows
from lydite.report.svg import NUM_COLORS
from lydite.runs import find_runs, read_groups, read_run, write_bytes

HERE = Path(__file__).parent
NULL = "null"
"""Family of the models that know nothing."""
MAX_KEPT = 1_000
TOTAL_KEPT = 12_000
MAX_NAMES = 3
"""So many models are named in the title; more are counted."""
NUM_STATIC = 4
"""Samples of each task that stand in the page without JavaScript."""


def write_report(out: Path) -> Path:
    """Makes OUT/report.html from the run folders under `out` and returns its path; RunError if there are none."""
    folders = find_runs(out)
    digests = read_digests(folders)
    path = (out if out.is_dir() else out.parent) / "report.html"
    write_bytes(path, render(out, digests).encode("utf-8", "replace"))
    return path


def read_digests(folders: Sequence[Path]) -> list[Digest]:
    """Every run under OUT, its samples read once; null models come last."""
    read = sorted(((read_run(folder), folder) for folder in folders), key=lambda pair: pair[0].model.family == NULL)
    runs = [run for run, _ in read]
    labels = label_models(runs)
    keep = min(MAX_KEPT, max(TOTAL_KEPT // max(len({run.task.name for run in runs}), 1), 20))
    digests = [digest(run, labels[i], folder, keep) for i, (run, folder) in enumerate(read)]
    for found in _by_task(digests).values():
        complete(found)
    return digests


def _by_task(digests: Sequence[Digest]) -> dict[str, list[Digest]]:
    found: dict[str, list[Digest]] = {}
    for one in digests:
        found.setdefault(one.run.task.name, []).append(one)
    return found


def render(out: Path, digests: Sequence[Digest]) -> str:
    """The page as text."""
    runs = [one.run for one in digests]
    models = model_names(runs)
    tasks = _by_task(digests)
    top = rows(runs, read_groups(out))
    anchors = {task: f"task-{position}" for position, task in enumerate(tasks)}
    browser = _browser(tasks, models)
    slices, left_out = breakdown.slices(top, tasks, models)
    style, script = (HERE / "page.css").read_text("utf-8"), (HERE / "page.js").read_text("utf-8")
    context = {
        "title": _title(models, tasks),
        "names": [text.one_line(model) for model in models] if len(models) <= MAX_NAMES else [],
        "models": _legend(models),
        "when": _when(digests),
        "version": lydite.__version__,
        "num_tasks": len(tasks),
        "num_samples": max((sum(len(o.rows) for o in digests if o.label == m) for m in models), default=0),
        "summary": summary.paragraph(top, models, {o.label for o in digests if o.run.model.family == NULL}),
        "warnings": summary.warnings(digests, top),
        "results": facts.result_rows(top, models, anchors),
        "forests": breakdown.forests(top, models),
        "members": breakdown.members(top, models),
        "slices": slices,
        "slices_left_out": left_out,
        "calibrations": breakdown.calibrations(top, tasks, models),
        "documents": breakdown.documents(tasks, models),
        "browser": browser,
        "num_static": NUM_STATIC,
        "estimates": facts.all_estimates(top, models),
        "model_facts": facts.model_facts(digests),
        "task_facts": facts.task_facts(digests),
        "configs": facts.config_facts(digests),
        "environment": facts.environment_facts(runs),
        "speed": facts.speed_facts(digests, models),
        "style": style,
        "script": script,
        "policy": policy(script),
        "data": embed({"models": [text.one_line(model) for model in models], "tasks": browser}),
    }
    return environment().get_template("page.html").render(context)


def environment() -> SandboxedEnvironment:
    """Where templates are found: whatever they are given is escaped."""
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["heat"] = heat
    environment.filters["breaks"] = breaks
    return environment


def breaks(name: str) -> Markup:
    """A name that may be broken over lines after an underscore, slash or colon."""
    return Markup("<wbr>").join(re.split(r"(?<=[_/:])(?=\w)", name))


def heat(token: Sequence[Any]) -> int:
    """Level 0 to 9 of a token's colour: its surprise of 0 to about 7 nats; of several tokens, that of a character."""
    if token[1] is None:
        return 0
    return min(9, int(-token[1] * 1.25 / (max(len(token[0]), 1) if len(token) > 2 else 1)))


def policy(script: str) -> str:
    """The content-security policy: nothing from anywhere, no script but this one."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = ["default-src 'none'", f"script-src 'sha256-{digest}'", "style-src 'unsafe-inline'", "img-src data:"]
    return "; ".join([*parts, "base-uri 'none'", "form-action 'none'"])


def embed(value: Any) -> str:
    """JSON that can stand inside a <script> element: no character of it can end the element or begin a comment."""
    source = msgspec.json.encode(value).decode()
    for character in "<>&\u2028\u2029":
        source = source.replace(character, f"\\u{ord(character):04x}")
    return source


def _browser(tasks: Mapping[str, Sequence[Digest]], models: Sequence[str]) -> list[dict[str, Any]]:
    """For each task the cards to show, and how many samples there are in all."""
    shared: dict[str, str] = {}
    cards: dict[str, list[Card]] = {}
    for task, found in tasks.items():
        shared[task], cards[task] = task_cards(found, models)
        for one in found:
            one.kept.clear()
    chosen = within_budget(cards)
    return [
        {
            "name": text.one_line(task),
            "metric": text.one_line(found[0].headline),
            "shared": shared[task],
            "total": max(len(one.rows) for one in found),
            "cards": chosen[task],
        }
        for task, found in tasks.items()
    ]


def _title(models: Sequence[str], tasks: Mapping[str, Sequence[Digest]]) -> str:
    names = [text.one_line(model) for model in models]
    return (
        text.join_words(names)
        if len(names) <= MAX_NAMES
        else f"{len(names)} models on {text.plural(len(tasks), 'task')}"
    )


def _legend(models: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"name": text.one_line(model), "color": position % NUM_COLORS, "marker": MARKERS[position % len(MARKERS)]}
        for position, model in enumerate(models)
    ]


def _when(digests: Sequence[Digest]) -> str:
    """The day, or days, on which the runs were begun."""
    days = sorted({one.run.created[:10] for one in digests if one.run.created})
    if not days:
        return ""
    first, last = (_day(day) for day in (days[0], days[-1]))
    if first == last:
        return first
    day, _, month = first.partition(" ")
    return f"{day} to {last}" if last.endswith(f" {month}") else f"{first} to {last}"


def _day(iso: str) -> str:
    try:
        day = datetime.fromisoformat(iso).replace(tzinfo=UTC)
    except ValueError:
        return text.one_line(iso)
    return f"{day.day} {day:%B %Y}"
