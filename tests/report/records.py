"""Small records that the report's tests draw: no model, no data, values chosen by hand."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from lydite.runs import safe_name, write_json, write_samples
from lydite.types import (
    Completion,
    Estimate,
    Failure,
    GenerateRequest,
    GroupEstimates,
    LogProbs,
    MetricInfo,
    ModelInfo,
    Run,
    Sample,
    SampleRecord,
    Score,
    ScoreRequest,
    TaskInfo,
    Timing,
)


def model(name: str = "small", rule: str = "causal") -> ModelInfo:
    return ModelInfo(
        name=name, family="causal", rule=rule, can=("score", "generate"), fingerprint=f"f{name}", dtype="float32"
    )


def estimate(
    value: float | None,
    half: float = 0.04,
    *,
    metric: str = "acc",
    chance: float | None = None,
    n: int = 100,
    failed: int = 0,
) -> Estimate:
    if value is None:
        return Estimate(metric=metric, value=None, stderr=None, interval=None, n=0, n_failed=failed)
    return Estimate(
        metric=metric,
        value=value,
        stderr=half / 1.96,
        interval=(value - half, value + half),
        method="t",
        n=n,
        n_failed=failed,
        chance=chance,
        signature=f"{metric} {value} | n {n}",
    )


def run(
    task: str = "colours",
    name: str = "small",
    estimates: tuple[Estimate, ...] | None = None,
    *,
    rule: str = "causal",
    status: str = "done",
    view: str = "score",
    lower: tuple[str, ...] = (),
    limit: int | None = None,
    n_samples: int = 100,
    fingerprint: str = "t1",
) -> Run:
    estimates = (estimate(0.7, chance=0.5),) if estimates is None else estimates
    infos = tuple(
        MetricInfo(name=e.metric, higher_is_better=e.metric not in lower, unit="proportion") for e in estimates
    )
    return Run(
        id=hashlib.sha256(f"{task} {name}".encode()).hexdigest()[:12],
        status=status,
        model=model(name, rule),
        task=TaskInfo(name=task, version=1, fingerprint=fingerprint, source="a book", licence="CC0", metrics=infos),
        view=view,
        config={"limit": limit, "seed": 0, "decoding": {}, "lydite": "0.1.0"},
        n_samples=n_samples,
        estimates=estimates,
        environment={"python": "3.12"},
        timing=Timing(seconds=2.0, tokens_requested=4000, tokens_computed=1000, peak_memory_bytes=10**9),
        created="2026-03-02T09:41:00+00:00",
    )


def group(name: str, members: tuple[str, ...], value: Estimate, owner: str = "small") -> GroupEstimates:
    return GroupEstimates(model=owner, group=name, members=members, weighting="samples", estimates=(value,))


def choice(
    id: str,
    *,
    question: str = "The sky is",
    choices: tuple[str, ...] = ("blue", "green"),
    totals: tuple[float, ...] = (-1.0, -2.0),
    gold: int = 0,
    shots: str = "",
    metadata: dict[str, str] | None = None,
    failure: str = "",
    truncated: int = 0,
    join: str = "clean",
) -> SampleRecord:
    """A choice sample whose choices are scored in one token each."""
    requests = tuple(
        ScoreRequest(sample_id=id, index=i, context=shots + question, continuation=" " + choice)
        for i, choice in enumerate(choices)
    )
    sample = Sample(id=id, input=question, choices=choices, gold=(gold,), metadata=metadata or {})
    if failure:
        outputs = tuple(Failure(reason=failure) for _ in choices)
        scores = (Score(sample_id=id, metric="acc", value=None, status="error", note=failure),)
    else:
        outputs = tuple(
            LogProbs(tokens=(" " + c,), logprobs=(t,), greedy=False, rule="causal", num_truncated=truncated, join=join)
            for c, t in zip(choices, totals, strict=True)
        )
        right = float(max(range(len(totals)), key=lambda i: totals[i]) == gold)
        scores = (Score(sample_id=id, metric="acc", value=right),)
    return SampleRecord(id=id, sample=sample, requests=requests, outputs=outputs, scores=scores)


def generation(
    id: str, text: str, *, right: bool, prompt: str = "Say it:", finish: str = "stop", answer: str | None = None
) -> SampleRecord:
    return SampleRecord(
        id=id,
        sample=Sample(id=id, input=prompt, targets=("it",)),
        requests=(GenerateRequest(sample_id=id, index=0, prompt=prompt),),
        outputs=(Completion(text=text, num_tokens=len(text), finish=finish),),
        scores=(
            Score(
                sample_id=id,
                metric="exact_match",
                value=float(right),
                answer=answer,
                status="ok" if answer is not None else "no_answer",
            ),
        ),
    )


def document(
    id: str, text: str, nats_per_character: float = 1.0, metadata: dict[str, str] | None = None
) -> SampleRecord:
    tokens = tuple(text)
    logprobs = tuple(-nats_per_character for _ in tokens)
    return SampleRecord(
        id=id,
        sample=Sample(id=id, input=text, metadata=metadata or {}),
        requests=(ScoreRequest(sample_id=id, index=0, continuation=text, window="max_context"),),
        outputs=(LogProbs(tokens=tokens, logprobs=logprobs, greedy=False, rule="causal"),),
        scores=(Score(sample_id=id, metric="bits_per_byte", value=nats_per_character, stats=(1.0, 1.0)),),
    )


def write_out(out: Path, runs: Sequence[tuple[Run, list[SampleRecord]]], groups: Sequence[GroupEstimates] = ()) -> Path:
    """A folder as `lydite evaluate` leaves it."""
    for run, records in runs:
        folder = out / safe_name(run.model.name) / safe_name(run.task.name)
        folder.mkdir(parents=True)
        write_json(folder / "run.json", run)
        write_samples(folder, records)
    if groups:
        write_json(out / "groups.json", list(groups))
    return out
