"""What the labelled benchmarks share: rows of either route under one set of names, and entries for both splits.

A benchmark is a table of Specs. Its rows come from the original files or from the hub; `columns` names the fields of a
row whatever they are called there, and `label_index` reads a label however it is written, so that both routes give
the same samples under the same ids (the number of the row, from 0).
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lydite.data.files import Row
from lydite.tasks.classify import ANSWERED, Texts, classification_task
from lydite.tasks.entry import Entry, with_server
from lydite.tasks.sources import Found, Source, find, samples_of
from lydite.types import Metric, Sample, Task


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One data set of a labelled benchmark."""

    name: str
    description: str
    files: Mapping[str, tuple[str, ...]]
    """Split ("test": what is evaluated, "shots", "server": the unlabelled test split) to candidate paths."""
    read: Callable[[Path], Iterable[Row]]
    hub: tuple[str, str | None]
    """Repository and configuration."""
    hub_splits: Mapping[str, str]
    columns: Mapping[str, tuple[str, ...]]
    """Name of a field to the names that it has in files and on the hub."""
    label: tuple[str, ...] = ("label",)
    """Names of the column with the gold label."""
    labels: tuple[str, ...]
    """Official names, in the order of the official indices."""
    words: tuple[str, ...]
    """What the score view scores for each label."""
    question: Callable[[Mapping[str, Any]], str]
    """Fields to the question of the score view."""
    text_to_text: Callable[[Mapping[str, Any]], str]
    texts: Callable[[Mapping[str, Any]], Texts]
    """Fields to what heads read."""
    metrics: tuple[Metric, ...]
    lead: str = " "
    choices: Callable[[Mapping[str, Any]], Sequence[str]] | None = None
    """Fields to the choices, where they are not the same words for all samples."""
    adapt: Callable[[dict[str, Any]], dict[str, Any] | None] | None = None
    """Changes the fields of a row after renaming; None leaves the row out."""
    disagreed: tuple[Any, ...] = ("-",)
    """Labels of rows on which the annotators did not agree; such rows are left out."""
    metadata: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    revision: str | None = None
    source: str
    licence: str
    languages: tuple[str, ...] = ("en",)
    splits: str = ""
    defects: str = ""
    other_splits: Mapping[str, str] = field(default_factory=dict)
    """Name of a file that is not the usual split to what its split is called; the run's settings say so."""
    version: int = 1


def label_index(value: Any, labels: Sequence[str]) -> int:
    """Index of a label that is written as a name, a number, or true and false. Raises ValueError for anything else."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        if value in labels:
            return labels.index(value)
        plain = value.strip().lower()
        lowered = [label.lower() for label in labels]
        if plain in lowered:
            return lowered.index(plain)
        if plain in ("false", "true"):
            return int(plain == "true")
        if not plain.removeprefix("-").isdigit():
            raise ValueError(f"{value!r} is no label; known: {', '.join(labels[:8])}")
        value = int(plain)
    if isinstance(value, int) and 0 <= value < len(labels):
        return value
    raise ValueError(
        "this row has no gold label, as in test splits that a server scores; the evaluated split needs one"
    )


def pick(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The first of the columns that the row has. Raises KeyError with the usual name."""
    for name in names:
        if name in row:
            return row[name]
    raise KeyError(names[0])


def sample_of(spec: Spec, labelled: bool, id: str, row: dict[str, Any]) -> Sample | None:
    """The sample of a row; None for rows that are left out."""
    fields = {name: pick(row, names) for name, names in spec.columns.items()}
    if spec.adapt:
        adapted = spec.adapt(fields)
        if adapted is None:
            return None
        fields = adapted
    gold: tuple[int, ...] = ()
    if labelled:
        value = pick(row, spec.label)
        if value in spec.disagreed:
            return None
        gold = (label_index(value, spec.labels),)
    return Sample(
        id=id,
        input=next(iter(fields.values())),
        choices=tuple(spec.choices(fields)) if spec.choices else spec.words,
        gold=gold,
        fields=fields,
        metadata={key: str(row[name]) for key, names in spec.metadata.items() for name in names if row.get(name)},
    )


def locate(spec: Spec, data_dir: Path | None, server: bool = False) -> Found:
    """Where the rows of a data set are; with `server` those of the unlabelled test split."""
    splits = {"test": "server", "shots": "shots"} if server else {"test": "test", "shots": "shots"}
    source = Source(
        files={split: spec.files[key] for split, key in splits.items() if key in spec.files},
        read=spec.read,
        repository=spec.hub[0] if splits["test"] in spec.hub_splits else "",
        configuration=spec.hub[1],
        splits={split: spec.hub_splits[key] for split, key in splits.items() if key in spec.hub_splits},
        revision=spec.revision,
        beside=spec.beside,
        original=spec.source,
    )
    return find(spec.name + ("_test" if server else ""), source, data_dir)


def load(spec: Spec, server: bool, data_dir: Path | None) -> Task:
    """The task of a data set, or of its unlabelled test split."""
    found = locate(spec, data_dir, server)
    local = found.paths["test"].name if found.is_local else ""
    labelled = samples_of(found, partial(sample_of, spec, True), ids="row")
    unlabelled = samples_of(found, partial(sample_of, spec, False), ids="row")
    task = classification_task(
        found.name,
        (lambda split: unlabelled(split) if split == "test" else labelled(split)) if server else labelled,
        lambda sample: spec.question(sample.fields),
        labels=spec.labels,
        metrics=(ANSWERED,) if server else spec.metrics,
        text_to_text=lambda sample: spec.text_to_text(sample.fields),
        texts=lambda sample: spec.texts(sample.fields),
        lead=spec.lead,
        version=spec.version,
        source=spec.source,
        licence=spec.licence,
        fingerprint=found.fingerprint(),
        origin=found.origin,
        settings={"split": spec.other_splits[local]} if local in spec.other_splits else {},
    )
    return task if "shots" in spec.files else dataclasses.replace(task, shot=None)


def chance_words(metrics: Sequence[Metric], num_labels: int) -> str:
    """What guessing gets, for docs/tasks.md."""
    known = {"acc": f"acc {1 / num_labels:.3g}", "mcc": "mcc 0"}
    return ", ".join(known[metric.name] for metric in metrics if metric.name in known)


def entries_of(spec: Spec) -> list[Entry]:
    """The data set, and its unlabelled test split where a server scores it."""
    entry = Entry(
        name=spec.name,
        kind="classification",
        source=spec.source,
        licence=spec.licence,
        languages=spec.languages,
        description=spec.description,
        load=partial(load, spec, False),
        listed=False,
        splits=spec.splits,
        chance=chance_words(spec.metrics, len(spec.labels)),
        defects=spec.defects,
    )
    return with_server(entry, partial(load, spec, True)) if "server" in spec.files else [entry]


def spelled(benchmark: str, names: Mapping[str, str]) -> Callable[[Mapping[str, Any]], str]:
    """T5's text-to-text input: the name of the data set, then every field with its name, in the given order."""

    def text(fields: Mapping[str, Any]) -> str:
        return " ".join([benchmark, *(f"{shown}: {fields[name]}" for shown, name in names.items())])

    return text


def pair(first: str, second: str | None = None) -> Callable[[Mapping[str, Any]], Texts]:
    """What heads read: one or two fields of the row."""
    return lambda fields: [(fields[first], fields[second] if second else None)]
