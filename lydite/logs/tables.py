"""What all readers of logs share: strict JSON, samples with their scores, and metrics that the samples really give."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from lydite.errors import DataError
from lydite.metrics.perplexity import BITS_PER_BYTE, BYTE_PERPLEXITY, PERPLEXITY, WORD_PERPLEXITY
from lydite.runs import LOGGED_BY, content_hash
from lydite.stats import estimate
from lydite.types import (
    Estimate,
    Metric,
    MetricInfo,
    ModelInfo,
    Output,
    Request,
    RequestKind,
    Run,
    Sample,
    SampleRecord,
    Score,
    TaskInfo,
)

RATES = {metric.name: metric for metric in (WORD_PERPLEXITY, BYTE_PERPLEXITY, BITS_PER_BYTE, PERPLEXITY)}
TOLERANCE = 1e-6
"""Relative, between a reported number and the one that the samples give."""


@dataclass(frozen=True)
class LoggedSample:
    """One sample of a log, with everything that was said about it."""

    sample: Sample
    requests: tuple[Request, ...]
    outputs: tuple[Output, ...]
    values: dict[str, Any]
    """Metric to what the log holds: a number, or (log-likelihood, units)."""


@dataclass(frozen=True)
class LoggedTask:
    """One model on one task, as a log tells it."""

    system: str
    """lm-eval 0.4.13 ..."""
    model: ModelInfo
    task: str
    version: str
    fingerprint: str
    view: RequestKind
    settings: dict[str, Any]
    """Of the task: shots, chat template ..."""
    config: dict[str, Any]
    reported: dict[str, tuple[float | None, float | None]]
    """Metric to (value, standard error) as the log reports them, in its order."""
    higher_is_better: Mapping[str, bool]
    samples: Sequence[LoggedSample] = ()
    num_samples: int | None = None
    """Where the samples themselves were not logged."""
    created: str = ""
    source: str = ""
    environment: dict[str, str] = field(default_factory=dict)


def read_json(path: Path, data: bytes | None = None) -> Any:
    """A JSON file; numbers that JSON does not have (NaN, Infinity) become None. DataError if it cannot be read."""
    try:
        return json.loads(path.read_bytes() if data is None else data, parse_constant=lambda name: None)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); it is damaged or not a log") from error


def expect(value: Any, kind: type, what: str, path: Path) -> Any:
    """`value` if it is of that kind, else a DataError."""
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise DataError(f"{path} does not look like a log: {what} is {type(value).__name__}, not {kind.__name__}")
    return value


def number(value: Any) -> float | None:
    """A finite number, also one written as text; else None."""
    if isinstance(value, bool | int | float | str):
        try:
            found = float(value)
        except (ValueError, OverflowError):
            return None
        return found if math.isfinite(found) else None
    return None


def as_run(log: LoggedTask) -> tuple[Run, list[SampleRecord]]:
    """The log as a run: metrics that its samples give with our intervals, others as they were reported."""
    metrics: list[Metric] = []
    estimates: list[Estimate] = []
    scores: dict[str, list[Score]] = {}
    for name, (value, stderr) in log.reported.items():
        found = _settle(log, name, value) if log.samples and value is not None else None
        if found is None:
            estimates.append(_as_reported(log, name, value, stderr))
            continue
        metric, scores[name] = found
        metrics.append(metric)
        estimates.append(_signed(log, estimate(metric, scores[name], chance=_chance(log, name))))
    order = [metric.name for metric in metrics]
    records = [
        SampleRecord(
            id=one.sample.id,
            sample=one.sample,
            requests=one.requests,
            outputs=one.outputs,
            scores=tuple(scores[name][place] for name in order),
        )
        for place, one in enumerate(log.samples)
    ]
    return _run(log, metrics, estimates), records


def _settle(log: LoggedTask, name: str, reported: float) -> tuple[Metric, list[Score]] | None:
    """The metric and its scores, if they give the reported number: as a mean, or as a perplexity."""
    values = [one.values.get(name) for one in log.samples]
    direction = log.higher_is_better.get(name, True)
    numbers = [number(value) for value in values]
    known = [value for value in numbers if value is not None]
    if known and _same(math.fsum(known) / len(known), reported):
        unit = "proportion" if set(known) <= {0.0, 1.0} else ""
        scores = [_score(one, name, value) for one, value in zip(log.samples, numbers, strict=True)]
        return Metric(name=name, higher_is_better=direction, unit=unit), scores
    rate = RATES.get(name.partition(",")[0])
    pairs = [_rate(value) for value in values]
    if rate is None or not pairs or any(pair is None for pair in pairs):
        return None
    scores = [
        Score(sample_id=one.sample.id, metric=name, value=_finish(rate, pair), stats=pair)
        for one, pair in zip(log.samples, pairs, strict=True)
        if pair is not None
    ]
    sums = (math.fsum(score.stats[0] for score in scores), math.fsum(score.stats[1] for score in scores))
    if not _same(_finish(rate, sums), reported):
        return None
    return Metric(name=name, higher_is_better=rate.higher_is_better, unit=rate.unit, finish=rate.finish), scores


def _rate(value: Any) -> tuple[float, float] | None:
    """(nats of surprise, units) of a log-likelihood, or of one with its number of words or bytes."""
    parts = [number(part) for part in value] if isinstance(value, list | tuple) else [number(value), 1.0]
    if len(parts) != 2 or parts[0] is None or not parts[1]:
        return None
    return -parts[0], parts[1]


def _finish(rate: Metric, sums: tuple[float, float]) -> float:
    assert rate.finish is not None
    return float(rate.finish(np.array(sums)))


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-9)


def _score(one: LoggedSample, name: str, value: float | None) -> Score:
    status: Literal["ok", "error"] = "error" if value is None else "ok"
    note = "the log has no number" if value is None else ""
    return Score(sample_id=one.sample.id, metric=name, value=value, status=status, note=note)


def _chance(log: LoggedTask, name: str) -> float | None:
    """What guessing among the choices gets; known for accuracies of questions with one right choice."""
    shares = [1 / len(one.sample.choices) for one in log.samples if one.sample.choices and len(one.sample.gold) == 1]
    if not name.startswith("acc") or len(shares) != len(log.samples):
        return None
    return math.fsum(shares) / len(shares)


def _as_reported(log: LoggedTask, name: str, value: float | None, stderr: float | None) -> Estimate:
    """A number whose samples are not there, or do not give it."""
    n = len(log.samples) or log.num_samples or 0
    found = Estimate(metric=name, value=value, stderr=stderr, interval=None, method="as reported", n=n, n_failed=0)
    return _signed(log, found)


def _signed(log: LoggedTask, found: Estimate) -> Estimate:
    interval = "" if found.interval is None else f" [{found.interval[0]:.4g}, {found.interval[1]:.4g}]"
    shown = "none" if found.value is None else f"{found.value:.4g}{interval}"
    parts = [f"{found.metric} {shown}", f"{log.task}@{log.version}", f"n {found.n}", f"failed {found.n_failed}"]
    parts += [f"{log.model.name}@{log.model.fingerprint[:7]}", log.system]
    parts += [f"{key} {value}" for key, value in sorted(log.settings.items()) if isinstance(value, str | int | float)]
    return msgspec.structs.replace(found, signature=" | ".join(parts))


def _run(log: LoggedTask, metrics: Sequence[Metric], estimates: Sequence[Estimate]) -> Run:
    infos = tuple(
        MetricInfo(name=m.name, higher_is_better=m.higher_is_better, unit=m.unit, version=m.version) for m in metrics
    )
    rest = tuple(
        MetricInfo(name=e.metric, higher_is_better=log.higher_is_better.get(e.metric, True))
        for e in estimates
        if e.metric not in {m.name for m in metrics}
    )
    config = {"limit": None, "seed": None, "decoding": {}} | log.config
    return Run(
        id=content_hash([config, log.model.fingerprint, log.task, log.version, log.settings, log.view]),
        status="done",
        model=log.model,
        task=TaskInfo(
            name=log.task,
            version=_whole(log.version),
            fingerprint=log.fingerprint,
            source=log.system,
            metrics=infos + rest,
            settings={**log.settings, "version": log.version},
        ),
        view=log.view,
        config=config,
        n_samples=len(log.samples) or log.num_samples or 0,
        estimates=tuple(estimates),
        environment={LOGGED_BY: log.system, "log": log.source, **log.environment},
        created=log.created,
    )


def _whole(version: str) -> int:
    """The whole number of a version such as 1.0; the text itself stands in the settings."""
    found = number(version)
    return int(found) if found is not None else 0


def metric_of(run: Run, name: str) -> Metric | None:
    """The metric of a run that came from a log, with its functions; None where it is not known here."""
    info = next((info for info in run.task.metrics if info.name == name), None)
    if info is None:
        return None
    rate = RATES.get(name.partition(",")[0])
    reported = next((e for e in run.estimates if e.metric == name), None)
    finish = rate.finish if rate and reported and reported.method == "bootstrap" else None
    return Metric(
        name=name, higher_is_better=info.higher_is_better, unit=info.unit, version=info.version, finish=finish
    )
