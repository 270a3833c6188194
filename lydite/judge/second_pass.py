"""Stored answers through a scorer: `second_pass(leaf, scorer)`.

The scores are written into the folder's samples in one step, in place of earlier ones by the same scorer; run.json is
left as it is. A sample whose request failed gets a score without value, never 0.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from lydite.errors import RunError
from lydite.runs import lock, read_run, read_samples, write_samples
from lydite.stats import estimate
from lydite.types import Completion, Estimate, Failure, Metric, SampleRecord, Score

BLOCK = 512
"""Answers that a scorer is given at a time."""


@dataclass(frozen=True, kw_only=True)
class Triple:
    """What a scorer sees of a sample."""

    source: str
    """The text that was translated, summarised or asked."""
    answer: str
    targets: tuple[str, ...]


class Scorer(Protocol):
    """A neural metric with its model."""

    name: str
    """With the model in it: bertscore:roberta-large@17."""
    metrics: tuple[Metric, ...]

    def score(self, triples: Sequence[Triple]) -> Sequence[Mapping[str, float]]:
        """For each triple a value for each metric; in order."""
        ...


@dataclass(frozen=True)
class Pass:
    """What a second pass gave."""

    estimates: tuple[Estimate, ...]
    n: int


def second_pass(leaf: Path, scorer: Scorer, *, on_progress: Callable[[int, int], None] | None = None) -> Pass:
    """Scores the answers of a leaf run folder and keeps the Scores there; `on_progress` is told how many answers of how
    many have been scored. Raises RunError where the run is not finished, or has no written answers or no references."""
    with lock(leaf):
        run = read_run(leaf)
        if run.status != "done":
            raise RunError(f"{leaf} is not finished; run the same command again, then score its answers")
        records = list({record.id: record for record in read_samples(leaf)}.values())
        by = f"judge:{scorer.name}"
        asked = [record for record in records if not _failed(record)]
        triples = [_triple(leaf, record) for record in asked]
        scored: list[Mapping[str, float]] = []
        for start in range(0, len(triples), BLOCK):
            scored += scorer.score(triples[start : start + BLOCK])
            if on_progress:
                on_progress(len(scored), len(triples))
        values = dict(zip([record.id for record in asked], scored, strict=True))
        judged = [_with_scores(record, scorer.metrics, values.get(record.id), by) for record in records]
        write_samples(leaf, judged)
    clusters = [record.sample.cluster for record in judged]
    estimates = []
    for metric in scorer.metrics:
        scores = [s for record in judged for s in record.scores if s.by == by and s.metric == metric.name]
        value = estimate(metric, scores, clusters=clusters)
        number = "none" if value.value is None else f"{value.value:.4g}"
        said = f"{metric.name} {number} | {run.task.name}@{run.task.version} | n {value.n} | failed {value.n_failed} | "
        said += f"{run.model.name}@{run.model.fingerprint[:7]} | by {by}"
        estimates.append(msgspec.structs.replace(value, signature=said))
    return Pass(tuple(estimates), len(records))


def _failed(record: SampleRecord) -> bool:
    return any(isinstance(output, Failure) for output in record.outputs)


def _triple(leaf: Path, record: SampleRecord) -> Triple:
    written = [output.text for output in record.outputs if isinstance(output, Completion)]
    if not written:
        raise RunError(f"{leaf} holds no written answers; neural metrics score what generation tasks wrote")
    if not record.sample.targets:
        raise RunError(f"{leaf}: sample {record.id} has no reference to compare with")
    # The answer as the task read it; where it read none, an empty text.
    read = [score.answer or "" for score in record.scores if score.by == "auto"]
    return Triple(
        source=record.sample.input, answer=read[0] if read else written[0].strip(), targets=record.sample.targets
    )


def _with_scores(
    record: SampleRecord, metrics: Sequence[Metric], values: Mapping[str, float] | None, by: str
) -> SampleRecord:
    fresh = tuple(
        Score(
            sample_id=record.id,
            metric=metric.name,
            value=None if values is None else values[metric.name],
            status="error" if values is None else "ok",
            by=by,
            note="the request failed" if values is None else "",
        )
        for metric in metrics
    )
    return msgspec.structs.replace(record, scores=(*(one for one in record.scores if one.by != by), *fresh))
