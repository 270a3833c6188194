"""An Entry is what the registry knows of a task or group before any data is looked for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
