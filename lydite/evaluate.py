"""The one evaluation loop: `evaluate(model, task) -> Run`.

    samples -> requests -> those not yet answered -> model.answer -> task.score -> samples.jsonl -> estimates -> run.json

Every model and every task walk this path; zero-shot, few-shot, fine-tuned and served models differ only in the view of
the task that they can answer. Models and tasks come in as arguments: this file imports neither, and no torch.
"""

import hashlib
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

import lydite
from lydite.errors import DataError, Interrupted, ModelError, RunError, TaskError
from lydite.naming import under_rule
from lydite.process import resident_peak
from lydite.runs import (
    RunFolder,
    content_hash,
    lock,
    read_run,
    read_samples,
    safe_name,
    well_formed,
    write_json,
    write_samples,
)
from lydite.stats import estimate
from lydite.types import (
    Decoding,
    Estimate,
    GenerateRequest,
    MetricInfo,
    Model,
    Output,
    Request,
    Run,
    Sample,
    SampleRecord,
    Score,
    Task,
    TaskInfo,
    Timing,
    Usage,
)

BLOCK = 1024
"""Samples handed to the model at a time: memory stays flat and the planner still sees what they share."""


@dataclass(frozen=True)
class Progress:
    """What `on_progress` is told after every finished sample."""

    done: int
    total: int
    usage: Usage


def evaluate(
    model: Model,
    task: Task,
    *,
    view: str | None = None,
    out: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    decoding: Mapping[str, Any] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Scores `model` on `task` and returns the Run with its estimates.

    `out`: the folder in which OUT/<model>/<task> is written and, when it is already there, continued; None keeps
    nothing. `limit`: that many samples, picked by a hash of their ids. `decoding`: overrides fields of the
    GenerateRequests' Decoding. Raises UserErrors, and Interrupted on Ctrl-C, after writing what was finished.
    """
    view = choose_view(model, task, view)
    task = under_rule(task, model.info.rule) if view == "score" else task
    samples = select(task, limit, seed)
    run = _new_run(model, task, view, samples, {"limit": limit, "seed": seed, "decoding": dict(decoding or {})})
    if out is None:
        return _evaluate(model, task, run, samples, None, on_progress)
    leaf = out / safe_name(model.info.name) / safe_name(task.name)
    with lock(leaf):
        folder = RunFolder(leaf, run)
        try:
            return _evaluate(model, task, run, samples, folder, on_progress)
        finally:
            folder.close()


def _evaluate(
    model: Model,
    task: Task,
    run: Run,
    samples: list[Sample],
    folder: RunFolder | None,
    on_progress: Callable[[Progress], None] | None,
) -> Run:
    """The loop itself, over the samples that `folder` does not hold yet."""
    clock = _Clock(model, folder)
    wanted = {sample.id for sample in samples}
    results = {r.id: _Result.of(r) for r in (folder.done if folder else ()) if r.id in wanted}
    todo = [sample for sample in samples if sample.id not in results]
    if on_progress:
        on_progress(Progress(len(results), len(samples), model.usage))
    try:
        for start in range(0, len(todo), BLOCK):
            for record in answer(model, task, run, todo[start : start + BLOCK]):
                if folder:
                    folder.append(record)
                results[record.id] = _Result.of(record)
                if on_progress:
                    on_progress(Progress(len(results), len(samples), model.usage))
            if folder:
                folder.save(msgspec.structs.replace(run, timing=clock.timing()))
    except KeyboardInterrupt:
        if folder:
            folder.save(msgspec.structs.replace(run, status="interrupted", timing=clock.timing()))
        raise Interrupted(f"interrupted: {len(results)} of {len(samples)} samples of {task.name} are kept") from None
    timing = clock.timing()
    estimates = summarise(task, run, [results[sample.id] for sample in samples])
    run = msgspec.structs.replace(run, status="done", estimates=estimates, timing=timing)
    if folder:
        folder.save(run)
    return run


def answer(model: Model, task: Task, run: Run, samples: Sequence[Sample]) -> Iterator[SampleRecord]:
    """Yields each sample's record as soon as its last answer has arrived."""
    plan = [(sample, _requests(task, run, sample)) for sample in samples]
    flat = [(row, column) for row, (_, requests) in enumerate(plan) for column in range(len(requests))]
    outputs: list[list[Output | None]] = [[None] * len(requests) for _, requests in plan]
    missing = [len(requests) for _, requests in plan]
    num_replaced = [0] * len(plan)
    for position, output in model.answer([plan[row][1][column] for row, column in flat]):
        row, column = flat[position]
        assert outputs[row][column] is None, f"{model.info.name} answered request {position} twice"
        # Before it is scored, so that scoring what is stored gives the same.
        outputs[row][column], replaced = well_formed(output)
        num_replaced[row] += replaced
        missing[row] -= 1
        if missing[row] == 0:
            sample, requests = plan[row]
            complete = tuple(o for o in outputs[row] if o is not None)
            scores = tuple(_noted(score, num_replaced[row]) for score in task.score(sample, complete))
            yield SampleRecord(id=sample.id, sample=sample, requests=requests, outputs=complete, scores=scores)
    assert not any(missing), f"{model.info.name} left {sum(missing)} requests unanswered"


def _noted(score: Score, num_replaced: int) -> Score:
    """The score, with a note on what could not be stored as the model gave it."""
    if not num_replaced:
        return score
    note = f"{num_replaced} lone surrogate{'s' if num_replaced > 1 else ''} of the answer replaced by U+FFFD"
    return msgspec.structs.replace(score, note=f"{score.note}; {note}" if score.note else note)


def _requests(task: Task, run: Run, sample: Sample) -> tuple[Request, ...]:
    """The sample's requests, with the run's decoding options and the sample's own seed."""
    requests = []
    for request in task.views[run.view](sample, task.prompt(sample)):
        if isinstance(request, GenerateRequest):
            seed = keyed_seed(task.name, sample.id, run.config["seed"])
            options = _decoding(request.decoding, run.config["decoding"])
            request = msgspec.structs.replace(request, decoding=options, seed=seed)
        requests.append(request)
    if not requests:
        raise TaskError(f"{task.name} made no request for sample {sample.id}; its view must return at least one")
    return tuple(requests)


def _decoding(default: Decoding, changes: Mapping[str, Any]) -> Decoding:
    if not changes:
        return default
    try:
        return msgspec.convert(msgspec.to_builtins(default) | dict(changes), Decoding, strict=False)
    except msgspec.ValidationError as error:
        raise DataError(f"decoding option: {error}; known: {', '.join(Decoding.__struct_fields__)}") from error


def keyed_seed(*key: object) -> int:
    """A seed in [0, 2^63) that depends on the key alone, not on order or process."""
    text = "\x1f".join(map(str, key)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def choose_view(model: Model, task: Task, view: str | None) -> str:
    """The view to use: the one asked for, else the task's first that the model can answer."""
    if view is not None and view not in task.views:
        raise TaskError(f"{task.name} has no view {view!r}; it has {', '.join(task.views)}")
    possible = [name for name in ([view] if view else task.views) if name in model.info.can]
    if not possible:
        asked = view or " or ".join(task.views)
        raise ModelError(
            f"{model.info.name} cannot answer {asked} requests, which {task.name} needs; it can {', '.join(model.info.can)}"
        )
    return possible[0]


def select(task: Task, limit: int | None, seed: int) -> list[Sample]:
    """The samples to evaluate, in the task's order; with a limit those whose hashed ids are smallest."""
    samples = list(task.samples("test"))
    ids = {sample.id for sample in samples}
    if not samples:
        raise DataError(f"{task.name} has no samples to evaluate; its data file is empty")
    if len(ids) < len(samples):
        raise DataError(f"{task.name} has {len(samples) - len(ids)} samples with an id that another has too")
    if limit is None or limit >= len(samples):
        return samples
    chosen = set(sorted(ids, key=lambda id: (keyed_seed(task.name, id, seed), id))[:limit])
    return [sample for sample in samples if sample.id in chosen]


def rescore(leaf: Path, task: Task) -> tuple[Run, Run]:
    """Scores the stored outputs of a run again with `task`, which may have other metrics or answer extraction.

    Needs neither model nor data files. Returns (run before, run after); the folder holds the latter. Raises RunError
    where a finished run has lost samples, or where the task asks for other requests than were answered.
    """
    with lock(leaf):
        before = read_run(leaf)
        _check_config(leaf, before)
        task = under_rule(task, before.model.rule) if before.view == "score" else task
        # Keyed, so that a sample that stands in the file twice counts once, as when a run is continued.
        records = list({record.id: _rescored(record, task, before.view) for record in read_samples(leaf)}.values())
        if before.status == "done" and len(records) != before.n_samples:
            raise RunError(
                f"{leaf} is done but holds {len(records)} of {before.n_samples} samples; "
                "evaluate again with the same command, then re-score"
            )
        task_info = msgspec.structs.replace(_task_info(task), settings=before.task.settings)
        run = msgspec.structs.replace(
            before,
            task=task_info,
            environment=before.environment | {"rescored": datetime.now(UTC).isoformat(timespec="seconds")},
        )
        if before.status == "done":
            estimates = summarise(task, run, [_Result.of(record) for record in records])
            run = msgspec.structs.replace(run, estimates=estimates)
        write_samples(leaf, records)
        write_json(leaf / "run.json", run)
    return before, run


class _Config(msgspec.Struct, frozen=True, kw_only=True):
    """What a signature needs of a run's config."""

    limit: int | None
    seed: int
    decoding: dict[str, Any]
    lydite: str


def _check_config(leaf: Path, run: Run) -> None:
    try:
        msgspec.convert(run.config, _Config)
    except msgspec.ValidationError as error:
        raise RunError(
            f"{leaf / 'run.json'}: its config is not that of an evaluation: {error}; move {leaf} away and evaluate again"
        ) from error


def _rescored(record: SampleRecord, task: Task, view: str) -> SampleRecord:
    asked = task.views[view](record.sample, task.prompt(record.sample)) if view in task.views else ()
    if [type(request) for request in asked] != [type(request) for request in record.requests]:
        raise RunError(
            f"{task.name} now asks for other requests than the run holds answers to; only metrics and answer extraction "
            "may change, so evaluate again with another --out"
        )
    kept = tuple(score for score in record.scores if score.by != "auto")
    return msgspec.structs.replace(record, scores=tuple(task.score(record.sample, record.outputs)) + kept)


# ------------------------------------------------------------------------------------------ estimates


@dataclass(frozen=True, slots=True)
class _Result:
    """What the estimates need of a record; requests and outputs are not kept in memory."""

    sample: Sample
    scores: tuple[Score, ...]

    @classmethod
    def of(cls, record: SampleRecord) -> "_Result":
        return cls(record.sample, record.scores)


def summarise(task: Task, run: Run, results: Sequence[_Result]) -> tuple[Estimate, ...]:
    """One Estimate a metric. Results are put in the order of their ids, so that the order in which answers came
    cannot move a bootstrap."""
    results = sorted(results, key=lambda result: result.sample.id)
    estimates = []
    for metric in task.metrics:
        rows = [
            (result, score)
            for result in results
            for score in result.scores
            if score.metric == metric.name and score.by == "auto"
        ]
        if not rows:
            continue  # a view may give fewer metrics: generated letters have no Brier score
        if len(rows) != len(results):
            raise TaskError(
                f"{task.name} gave {len(rows)} scores {metric.name} for {len(results)} samples; its `score` must return "
                'one of each metric for every sample, with status "error" where a request failed'
            )
        chances = [task.chance(result.sample).get(metric.name) for result, score in rows if score.value is not None]
        known = [chance for chance in chances if chance is not None]
        try:
            value = estimate(
                metric,
                [score for _, score in rows],
                clusters=[result.sample.cluster for result, _ in rows],
                chance=sum(known) / len(known) if known and len(known) == len(chances) else None,
            )
        except ValueError as error:  # statistics that are missing or of unequal length, values that are no proportions
            raise TaskError(f"{task.name}: {error}") from error
        estimates.append(msgspec.structs.replace(value, signature=signature(run, value)))
    if not estimates:
        raise TaskError(f"{task.name} scores none of its metrics; its `score` must return a Score for each of them")
    return tuple(estimates)


def signature(run: Run, value: Estimate) -> str:
    """The line that lets anyone reproduce a number."""
    if value.value is None:
        number = "none"
    elif value.interval is None:
        number = f"{value.value:.4g}"
    else:
        number = f"{value.value:.4g} [{value.interval[0]:.4g}, {value.interval[1]:.4g}]"
    model, config = run.model, run.config
    parts = [
        f"{value.metric} {number}",
        f"{run.task.name}@{run.task.version}",
        f"n {value.n}",
        f"failed {value.n_failed}",
    ]
    parts += [
        f"{model.name}@{model.fingerprint[:7]}",
        f"rule {model.rule}" if run.view == "score" else f"view {run.view}",
    ]
    parts += [model.dtype] if model.dtype else []
    parts += _said({"shots": 0, **run.task.settings})
    parts += [f"limit {config['limit']}"] if config["limit"] is not None else []
    parts += [f"seed {config['seed']}", *_said(config["decoding"])]
    parts += _said({"model_seed" if key == "seed" else key: setting for key, setting in model.settings.items()})
    return " | ".join([*parts, f"lydite {config['lydite']}"])


def _said(settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of a signature; what is off or unset goes without saying."""
    return [
        f"{key} {setting}"
        for key, setting in sorted(settings.items())
        if isinstance(setting, str | int | float) and setting is not False
    ]


# ----------------------------------------------------------------------------------------- bookkeeping


def _new_run(model: Model, task: Task, view: str, samples: Sequence[Sample], options: dict[str, Any]) -> Run:
    info = model.info
    task_info = _task_info(task)
    config = {
        "model": {"fingerprint": info.fingerprint, "dtype": info.dtype, "rule": info.rule, "settings": info.settings},
        "task": {
            "name": task.name,
            "version": task.version,
            "fingerprint": task.fingerprint,
            "settings": task_info.settings,
        },
        "view": view,
        "lydite": lydite.__version__,
        **options,
    }
    return Run(
        id=content_hash(config),
        status="running",
        model=info,
        task=task_info,
        view=view,
        config=config,
        n_samples=len(samples),
        environment=environment() | dict(task.origin),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _task_info(task: Task) -> TaskInfo:
    return TaskInfo(
        name=task.name,
        version=task.version,
        fingerprint=task.fingerprint,
        source=task.source,
        licence=task.licence,
        metrics=tuple(
            MetricInfo(name=m.name, higher_is_better=m.higher_is_better, unit=m.unit, version=m.version)
            for m in task.metrics
        ),
        settings=dict(task.settings),
    )


def environment() -> dict[str, str]:
    """What the numbers were made with, as far as it may matter to somebody who repeats them."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "lydite": lydite.__version__}
    for package in ("torch", "transformers", "tokenizers", "numpy", "scipy", "sacrebleu"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


class _Clock:
    """Seconds, tokens and memory of this part of a run, added to those of earlier parts."""

    def __init__(self, model: Model, folder: RunFolder | None) -> None:
        self.before = folder.earlier.timing if folder and folder.earlier else Timing()
        self.usage, self.start = model.usage, time.perf_counter()
        self.counts = (self.usage.tokens_requested, self.usage.tokens_computed, self.usage.tokens_generated)

    def timing(self) -> Timing:
        requested, computed, generated = self.counts
        return Timing(
            seconds=self.before.seconds + time.perf_counter() - self.start,
            load_seconds=max(self.before.load_seconds, self.usage.load_seconds),
            tokens_requested=self.before.tokens_requested + self.usage.tokens_requested - requested,
            tokens_computed=self.before.tokens_computed + self.usage.tokens_computed - computed,
            tokens_generated=self.before.tokens_generated + self.usage.tokens_generated - generated,
            peak_memory_bytes=max(self.before.peak_memory_bytes, resident_peak()),
            kernel=self.usage.kernel,
        )
