"""What a comparison of runs is made of; strict records, so that `lydite compare --json` can be read back."""

from typing import Any

from lydite.stats import Difference
from lydite.types import Estimate, ModelInfo, Record


class System(Record, frozen=True, kw_only=True):
    """One model with its runs."""

    label: str
    """The model's name; with its folder where two have the same name."""
    model: ModelInfo
    folders: dict[str, str]
    """Task to run folder."""


class SettingDifference(Record, frozen=True, kw_only=True):
    """One setting in which runs of a task differ."""

    key: str
    """Dotted, as in run.json: model.dtype, task.settings.shots, environment.torch ..."""
    values: dict[str, Any]
    """Label to value; a run without the setting has None."""
    tasks: tuple[str, ...]


class NotCompared(Record, frozen=True, kw_only=True):
    """Something that was asked for and not compared."""

    task: str
    systems: tuple[str, ...]
    reason: str


class Pair(Record, frozen=True, kw_only=True):
    """Two systems on one task: a - b."""

    a: str
    b: str
    difference: Difference
    p_holm: float | None
    """p after Holm's correction over all tests of tasks (or all of groups) in this comparison."""
    signature: str = ""


class Compared(Record, frozen=True, kw_only=True):
    """Systems on the shared samples of a task, or pooled over the tasks of a group."""

    name: str
    members: tuple[str, ...] = ()
    """Tasks of a group; empty for a task."""
    version: int | None = None
    """Of the task."""
    weighting: str = ""
    metric: str
    higher_is_better: bool
    systems: tuple[str, ...]
    """Labels, best value first."""
    estimates: tuple[Estimate, ...]
    """In the order of `systems`, on the shared samples."""
    ranks: tuple[str, ...]
    """Letters in the order of `systems`: two that share a letter are not told apart by their corrected test."""
    pairs: tuple[Pair, ...]
    n_shared: int
    """Samples that all systems have with equal content; some may have failed."""
    n_unshared: int = 0
    """Other samples of any of the runs."""


class Comparison(Record, frozen=True, kw_only=True):
    """What `compare` finds."""

    systems: tuple[System, ...]
    differences: tuple[SettingDifference, ...]
    not_compared: tuple[NotCompared, ...]
    tasks: tuple[Compared, ...]
    groups: tuple[Compared, ...]
    level: float
    seed: int
    resamples: int
