"""`lydite tasks`: the list of tasks, or one of them with a rendered prompt."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lydite.errors import DataError, UserError
from lydite.report.text import clean, one_line
from lydite.tasks import Entry, list_tasks, load_tasks
from lydite.types import Context, GenerateRequest, Group, Request, Sample, ScoreRequest, Task

NARROW = 70
"""Columns of a terminal below which the list of tasks has no columns of its own."""


def tasks(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A task, a group, or the path of a task file; none: list all."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Show the prompt as this model's tokens.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(envvar="LYDITE_DATA", help="Folder with benchmarks in their original formats.")
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=0, help="Examples in the prompt; default: what the task says.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Picks the examples.")] = 0,
    chat: Annotated[bool, typer.Option("--chat", help="As messages for a chat template.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="List every subject and paradigm too.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List tasks, or show one with a rendered prompt.

    `lydite tasks mini_nli_en`
    """
    if name is None:
        if model or shots is not None or chat:
            raise UserError("--model, --shots and --chat show one task; name it: lydite tasks NAME")
        _list([entry for entry in list_tasks() if entry.listed or all_ or json_], json_)
        return
    loaded, groups = load_tasks([name], data_dir=data_dir)
    group = next((group for group in groups if group.name == name), None)
    if group is not None:
        _show_group(group, loaded, json_)
    else:
        _show_task(loaded[0], model, {"shots": shots, "seed": seed, "chat": chat}, json_)


def _list(entries: list[Entry], json_: bool) -> None:
    if json_:
        _print_json([_facts(entry) for entry in entries])
        return
    rows = []
    for entry in entries:
        kind = f"{len(entry.members)} tasks" if entry.members else entry.kind.replace("_", " ")
        languages = ", ".join(entry.languages) if len(entry.languages) < 4 else f"{len(entry.languages)}"
        rows.append([entry.name, kind, languages, entry.description])
    console = Console(markup=False, highlight=False)
    if console.width < NARROW:
        for name, kind, languages, description in rows:
            console.print(f"{name} ({kind}, {languages})")
            console.print(Padding(description, (0, 0, 0, 2), expand=False))
    else:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for title in ("task", "kind", "lang", "what it is"):
            table.add_column(title, no_wrap=title in ("task", "kind"))
        for row in rows:
            table.add_row(*row)
        console.print(table)
    print("\n`lydite tasks NAME` shows one with its prompt, --all every subject; own data: a path to a .toml file.")


def _facts(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "kind": entry.kind,
        "source": entry.source,
        "licence": entry.licence,
        "languages": entry.languages,
        "description": entry.description,
        "members": entry.members,
    }


def _show_group(group: Group, loaded: list[Task], json_: bool) -> None:
    entry = next((entry for entry in list_tasks() if entry.name == group.name), None)
    facts = {
        "name": group.name,
        "about": group.description,
        "source": entry.source if entry else "",
        "licence": entry.licence if entry else "",
        "weighting": f"every {'sample' if group.weighting == 'samples' else 'member'} counts alike",
        "members": ", ".join(group.members),
        "tasks": str(len(loaded)),
    }
    if json_:
        _print_json(facts | {"members": group.members, "tasks": [task.name for task in loaded]})
    else:
        _print_facts(facts)


def _show_task(task: Task, model: str | None, options: dict[str, Any], json_: bool) -> None:
    from lydite.adapt.prompt import prompted

    entry = next((entry for entry in list_tasks() if entry.name == task.name), None)
    about = {
        "name": task.name,
        "about": entry.description if entry else "",
        "kind": entry.kind if entry else "",
        "source": task.source,
        "licence": task.licence,
        "version": str(task.version),
        "views": ", ".join(task.views),
        "metrics": ", ".join(metric.name for metric in task.metrics),
    }
    try:
        ready = prompted(task, **options)
    except DataError:
        # Without its data there is no prompt, but what to look for can be told.
        if not json_:
            _print_facts(about)
        raise
    samples = list(ready.samples("test"))
    sample = samples[0]
    view = next(iter(ready.views))
    requests = list(ready.views[view](sample, ready.prompt(sample)))
    chance = ", ".join(f"{metric} {value:.3g}" for metric, value in _chance(ready, samples).items())
    facts = about | {
        "fingerprint": task.fingerprint,
        "data": task.origin.get("data", ""),
        "samples": str(len(samples)),
        "chance": chance or "has no meaning here",
        "settings": ", ".join(f"{key} {value}" for key, value in ready.settings.items()),
        "gold": _gold(sample),
    }
    tokens = _tokens(model, requests) if model else []
    if json_:
        _print_json(facts | {"sample": sample, "requests": requests, "tokens": tokens})
        return
    _print_facts(facts)
    _print_prompt(sample, ready.prompt(sample), requests)
    for number, pieces in enumerate(tokens[:1]):
        _rule(f"tokens of request {number}; (n): n tokens that share characters")
        _print_text("".join(f"[{piece}]".replace("\n", "\\n") for piece in pieces))


def _chance(task: Task, samples: list[Sample]) -> dict[str, float]:
    """What guessing gets, averaged over the samples that have such a value."""
    values: dict[str, list[float]] = {}
    for sample in samples:
        for metric, value in task.chance(sample).items():
            values.setdefault(metric, []).append(value)
    names = [metric.name for metric in task.metrics if metric.name in values]
    return {name: sum(values[name]) / len(values[name]) for name in names}


def _gold(sample: Sample) -> str:
    return " | ".join(sample.choices[index] for index in sample.gold) or " | ".join(sample.targets)


def _print_facts(facts: dict[str, str]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for key, value in facts.items():
        if value:
            table.add_row(key, Text(one_line(value)))
    Console().print(table)


def _print_prompt(sample: Sample, context: Context, requests: list[Request]) -> None:
    """The context once, then what is asked for after it."""
    _rule(f"prompt of sample {sample.id}")
    _print_context(context)
    shown = context
    for request in requests:
        if isinstance(request, ScoreRequest):
            asked = request.messages or request.context
            if asked != shown:
                _rule("another context")
                _print_context(asked)
                shown = asked
            _rule(f"scored continuation {request.index}")
            _print_text(request.continuation)
        elif isinstance(request, GenerateRequest):
            stops = ", ".join(map(repr, request.decoding.stop_strings))
            if request.decoding.one_line:
                stops = ", ".join(filter(None, (stops, "the end of its first line")))
            limit = f"up to {request.decoding.max_new_tokens} tokens"
            _rule(f"the model writes on, {limit}" + (f", up to {stops}" if stops else ""))


def _print_context(context: Context) -> None:
    if isinstance(context, str):
        _print_text(context or "(empty: the text is scored from the beginning of a sequence)")
    else:
        for message in context:
            _print_text(f"<{message.role}>\n{message.content}")


def _tokens(spec: str, requests: list[Request]) -> list[list[str]]:
    """Each request's tokens as the model reads them: with its BOS, through its chat template."""
    from lydite.models import load_model
    from lydite.models.reference import is_null

    if is_null(spec):
        raise UserError(f"{spec} reads no tokens; name a causal model")
    from lydite.models.causal import CausalModel

    model = load_model(spec)
    if not isinstance(model, CausalModel):
        raise UserError(f"{spec} is a {model.info.family} model, which does not show its tokens; name a causal one")
    encoder = model.encoder
    texts = []
    for request in requests:
        assert isinstance(request, ScoreRequest | GenerateRequest), "other views have no prompt"
        plain = request.context if isinstance(request, ScoreRequest) else request.prompt
        before = encoder.render(request.messages) if request.messages else plain
        texts.append(before + (request.continuation if isinstance(request, ScoreRequest) else ""))
    return [_pieces(ids, encoder.decode) for ids in encoder.prompt_ids(texts)]


def _pieces(ids: list[int], decode: Callable[[list[int]], str]) -> list[str]:
    """Tokens as text. Those that only hold parts of characters are shown together, with their number behind."""
    pieces, group = [], []
    for token in ids:
        group.append(token)
        text = decode(group)
        if not text.endswith("\ufffd"):
            pieces.append(text if len(group) == 1 else f"{text}({len(group)})")
            group = []
    return [*pieces, f"{decode(group)}({len(group)})"] if group else pieces


def _rule(title: str) -> None:
    Console(soft_wrap=True).print(Text(f"--- {one_line(title)} ---", style="bold"))


def _print_text(text: str) -> None:
    # Not through rich: a prompt must neither be wrapped nor read as markup.
    print(clean(text))


def _print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
