"""docs/tasks.md, made from the registry: `python -m lydite.tasks.overview docs/tasks.md`.

No data is read: sizes, chance and defects are what the entries say, metrics and versions what the tasks say. A test
compares the file with what this module makes, so that the page cannot fall behind the code.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lydite.tasks import list_tasks
from lydite.tasks.entry import Entry
from lydite.types import Task

HEAD = """# Tasks

Made from the registry by `python -m lydite.tasks.overview docs/tasks.md`; do not edit. `lydite tasks NAME` shows one
with its prompt. Metrics stand with the headline first; [numbers.md](numbers.md) says what each means. *Chance* is what
an even guess gets. Members of one group that differ only in their name share a row.
"""


def markdown() -> str:
    """The whole page."""
    entries = {entry.name: entry for entry in list_tasks()}
    member_of: dict[str, Entry] = {}
    for entry in entries.values():
        for name in entry.members:
            if not entries[name].members:
                # The widest group of a task is the family under which it is listed.
                known = member_of.get(name)
                member_of[name] = entry if known is None or len(entry.members) > len(known.members) else known
    families: dict[str, list[Entry]] = {}
    for entry in entries.values():
        if not entry.members:
            owner = member_of.get(entry.name)
            families.setdefault(owner.name if owner else entry.name, []).append(entry)
    singles = [leaves[0] for name, leaves in families.items() if name == leaves[0].name]
    parts = [HEAD, *_groups([entry for entry in entries.values() if entry.members])]
    for name, leaves in families.items():
        if name != leaves[0].name:
            parts += [
                f"\n## {name}: {entries[name].description}\n",
                *_table(leaves),
                *_defects([entries[name], *leaves]),
            ]
    parts += ["\n## Tasks of their own\n", *_table(singles), *_defects(singles)]
    return "\n".join(parts) + "\n"


def _groups(groups: Sequence[Entry]) -> list[str]:
    rows = ["## Groups\n", "| group | what it is | members | weighting |", "| --- | --- | --- | --- |"]
    for group in groups:
        shown = ", ".join(f"`{name}`" for name in group.members[:12])
        more = f" and {len(group.members) - 12} more" if len(group.members) > 12 else ""
        weighting = "every sample alike" if group.weighting == "samples" else "every member alike"
        rows.append(f"| `{group.name}` | {_cell(group.description)} | {shown}{more} | {weighting} |")
    return rows


def _table(leaves: Sequence[Entry]) -> list[str]:
    """Rows of tasks; those that agree in everything but name and description are one row."""
    rows = [
        "| task | version | metrics | chance | views | splits | languages | source | licence |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    alike: dict[tuple[str, ...], list[str]] = {}
    for entry in leaves:
        assert entry.load is not None, f"{entry.name} has no loader"
        alike.setdefault(_facts(entry, entry.load(None)), []).append(entry.name)
    for facts, names in alike.items():
        shown = ", ".join(f"`{name}`" for name in names[:4])
        if len(names) > 4:
            shown = f"`{names[0]}` ... `{names[-1]}` ({len(names)} tasks)"
        rows.append(f"| {shown} | " + " | ".join(map(_cell, facts)) + " |")
    return rows


def _facts(entry: Entry, task: Task) -> tuple[str, ...]:
    return (
        str(task.version),
        ", ".join(metric.name for metric in task.metrics),
        entry.chance,
        ", ".join(task.views),
        entry.splits,
        ", ".join(entry.languages),
        entry.source,
        entry.licence,
    )


def _defects(entries: Sequence[Entry]) -> list[str]:
    times = Counter(entry.defects for entry in entries if entry.defects)
    names = {text: [entry.name for entry in entries if entry.defects == text] for text in times}
    lines = [f"- {_few(names[text])}: {text}" for text in times]
    return ["\nKnown defects:\n", *lines] if lines else []


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(f"`{name}`" for name in names[:4]) + more


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(markdown(), encoding="utf-8")
