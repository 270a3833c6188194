"""An Entry is what the registry knows of a task or group before any data is looked for; and how families make theirs."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lydite.types import Task


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One name that `--tasks` accepts."""

    name: str
    kind: str
    """minimal_pairs, multiple_choice, last_word, generation, heldout; of groups: group."""
    source: str = ""
    licence: str = ""
    languages: tuple[str, ...] = ("en",)
    """ISO 639-1 codes."""
    description: str = ""
    """One line for people; not part of any prompt."""
    load: Callable[[Path | None], Task] | None = None
    """Data folder to Task; None for groups."""
    members: tuple[str, ...] = ()
    """Names of tasks or groups, for groups."""
    weighting: Literal["samples", "tasks"] = "samples"
    listed: bool = True
    """Whether `lydite tasks` shows it without --all: subjects and paradigms are shown as one group."""
    splits: str = ""
    """Sizes of the official splits and which one is evaluated, for docs/tasks.md."""
    chance: str = ""
    """What guessing gets, in words, where a number needs data: "acc 0.5, mcc 0"."""
    defects: str = ""
    """What is known to be wrong with the data, the wording or the usual metric."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What the entry and the task of one benchmark both say; the base of a family's table."""

    name: str
    about: str
    """One line for people."""
    home: str
    """Where it comes from."""
    licence: str
    splits: str
    defects: str

    def entry(self, load: Callable[[Path | None], Task], **fields: Any) -> Entry:
        """Its entry; `fields` are those of Entry."""
        return Entry(
            name=self.name,
            source=self.home,
            licence=self.licence,
            description=self.about,
            load=load,
            splits=self.splits,
            defects=self.defects,
            **fields,
        )


def with_server(entry: Entry, load: Callable[[Path | None], Task]) -> list[Entry]:
    """The entry, and that of its test split without labels, which a server scores and `load` loads."""
    server = dataclasses.replace(
        entry,
        name=f"{entry.name}_test",
        description=f"{entry.description.rstrip('?')}: test split without labels, for the server",
        load=load,
        listed=False,
        splits="test",
        chance="no labels, so no scores",
    )
    return [entry, server]


def group_of(name: str, description: str, members: Sequence[Entry], **fields: Any) -> Entry:
    """The group of entries that come from one place; `fields` are those of Entry."""
    languages = dict.fromkeys(language for member in members for language in member.languages)
    known = {"source": members[0].source, "licence": members[0].licence, "languages": tuple(languages)}
    names = tuple(member.name for member in members)
    return Entry(name=name, kind="group", description=description, members=names, **known | fields)
