"""The registry of tasks: names to Tasks and Groups, with source, licence, version and chance.

A name is a built-in task or group, or the path of a task file (.toml, .py). Nothing here imports torch, and listing
reads no data. Data is looked for when a task is loaded and read when its samples are asked for, so a task can score
stored outputs where its data is missing.
"""

import difflib
import functools
from collections.abc import Iterable
from pathlib import Path

from lydite.errors import DataError, TaskError
from lydite.tasks.entry import Entry
from lydite.types import Group, Task

DATA_ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")

__all__ = ["Entry", "list_tasks", "load_tasks"]


@functools.cache
def _entries() -> dict[str, Entry]:
    from lydite.tasks import (
        arc,
        bbq,
        bias,
        blimp,
        closed_book,
        clue,
        coqa,
        crosslingual,
        exams,
        glue,
        gsm8k,
        lambada,
        minisuite,
        mlqa,
        parallel,
        squad,
        summaries,
        superglue,
        wikitext,
        winograd,
        xquad,
    )

    found: dict[str, Entry] = {}
    for benchmark in (
        minisuite,
        blimp,
        glue,
        superglue,
        arc,
        exams,
        lambada,
        wikitext,
        gsm8k,
        xquad,
        winograd,
        bias,
        bbq,
        crosslingual,
        clue,
        squad,
        mlqa,
        closed_book,
        coqa,
        summaries,
        parallel,
    ):
        for entry in benchmark.entries():
            assert entry.name not in found, f"two tasks are called {entry.name}"
            found[entry.name] = entry
    return found


def list_tasks() -> list[Entry]:
    """Every name that `load_tasks` knows, without looking for data."""
    return list(_entries().values())


def load_tasks(names: Iterable[str], *, data_dir: Path | None = None) -> tuple[list[Task], list[Group]]:
    """The Tasks that the names stand for, each once, and the Groups among them (groups that only hold groups too).

    Groups of benchmarks use what a local data folder holds of them, and their description says what is missing; where
    it holds nothing, all members are returned and their samples come from the hub or raise a DataError. Raises
    TaskError for unknown names and DataError for a `data_dir` that is no folder.
    """
    if data_dir is not None and not data_dir.is_dir():
        raise DataError(f"no folder {data_dir.resolve()}; give --data-dir the folder that holds the benchmarks")
    loader = _Loader(data_dir)
    for name in names:
        loader.add(name)
    return list(loader.tasks.values()), list(loader.groups.values())


class _Loader:
    """What one call of load_tasks has found so far."""

    def __init__(self, data_dir: Path | None) -> None:
        self.data_dir = data_dir
        self.tasks: dict[str, Task] = {}
        self.groups: dict[str, Group] = {}

    def add(self, name: str) -> None:
        if Path(name).suffix in (".toml", ".py"):
            task = _load_path(Path(name))
            if task.name in self.tasks:
                raise TaskError(f"{name}: another task is called {task.name!r} already; change `name`")
            self.tasks[task.name] = task
        elif name not in _entries():
            raise TaskError(unknown(name, _entries()))
        elif _entries()[name].members:
            self._add_group(_entries()[name])
        elif name not in self.tasks:
            self.tasks[name] = self._load(_entries()[name])

    def _load(self, entry: Entry) -> Task:
        assert entry.load is not None, f"{entry.name} has no loader"
        return entry.load(self.data_dir)

    def _add_group(self, entry: Entry) -> None:
        """Members first; leaves without local data are left out while others have some."""
        if entry.name in self.groups:
            return
        leaves = [name for name in entry.members if not _entries()[name].members]
        loaded = {name: self.tasks.get(name) or self._load(_entries()[name]) for name in leaves}
        local = [name for name, task in loaded.items() if _is_local(task)]
        missing = [name for name in leaves if local and name not in local]
        # A group among tasks (MNLI in GLUE) is left out where all of its members are missing.
        missing += [name for name in entry.members if local and name not in leaves and not self._has_local(name)]
        members = tuple(name for name in entry.members if name not in missing)
        for name in members:
            if name in loaded:
                self.tasks.setdefault(name, loaded[name])
            else:
                self._add_group(_entries()[name])
        description = entry.description
        if missing:
            here = len(entry.members) - len(missing)
            description += f"; {here} of {len(entry.members)} are here, missing: {', '.join(missing)}"
        self.groups[entry.name] = Group(
            name=entry.name, members=members, weighting=entry.weighting, description=description
        )

    def _has_local(self, name: str) -> bool:
        """Whether any task below a group has local data."""
        members = _entries()[name].members
        return any(map(self._has_local, members)) if members else _is_local(self._load(_entries()[name]))


def _is_local(task: Task) -> bool:
    return not task.origin.get("data", "hub:").startswith("hub:")


def unknown(name: str, known: Iterable[str], what: str = "task") -> str:
    """One line about a name that does not exist, with those that are spelled alike."""
    files = [f"{name}{end}" for end in (".toml", ".py") if what == "task" and Path(f"{name}{end}").is_file()]
    near = files or difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if what == "task" and Path(name).suffix in DATA_ENDINGS:
        return (
            f"{name} is data and no task; describe it in a .toml file beside it (docs/adding-a-task.md) and name that"
        )
    hint = f"did you mean {' or '.join(near)}?" if near else f"`lydite {what}s` lists them"
    return f"unknown {what} {name!r}; {hint}" + ("" if near else ", and a path ends in .toml or .py")


def _load_path(path: Path) -> Task:
    from lydite.tasks.own import load_task_file
    from lydite.tasks.python_file import load_python_file

    return load_task_file(path) if path.suffix == ".toml" else load_python_file(path)
