"""Runs as lm-evaluation-harness writes them: OUT/MODEL/results_TIME.json and samples_TASK_TIME.jsonl.

What their format has no word for is left out of it, not bent: a failed sample has no metric on its line and is in no
mean; intervals, signatures and clusters stay in the run folder. Hashes are made as theirs, so that tools that compare
documents or prompts find them.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from lydite.runs import read_run, read_samples, write_bytes
from lydite.types import (
    Completion,
    GenerateRequest,
    LogProbs,
    Message,
    Output,
    Request,
    Run,
    SampleRecord,
    ScoreRequest,
)


def write_lm_eval(leaves: Sequence[Path], out: Path) -> list[Path]:
    """Writes one results file a model, and its samples; returns the results files."""
    runs = [(leaf, read_run(leaf)) for leaf in leaves]
    written = []
    for name in dict.fromkeys(run.model.name for _, run in runs):
        of_model = [(leaf, run) for leaf, run in runs if run.model.name == name]
        stamp = _stamp(max(run.created for _, run in of_model))
        folder = out / re.sub(r'[\\"<>:/|?*\[\]]+', "__", name)
        folder.mkdir(parents=True, exist_ok=True)
        hashes = {}
        for leaf, run in of_model:
            lines = [_line(index, record, run) for index, record in enumerate(read_samples(leaf))]
            whole = "".join(row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in lines)
            hashes[run.task.name] = _hash(whole)
            data = b"".join(_json(row) + b"\n" for row in lines)
            write_bytes(folder / f"samples_{_file_name(run.task.name)}_{stamp}.jsonl", data)
        kinds = {run.task.name: _kind(next(read_samples(leaf), None)) for leaf, run in of_model}
        results = _results([run for _, run in of_model], hashes, kinds)
        path = folder / f"results_{stamp}.json"
        write_bytes(path, msgspec.json.format(_json(results), indent=2) + b"\n")
        written.append(path)
    return written


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def _file_name(task: str) -> str:
    return task.replace("/", "__")


def _stamp(created: str) -> str:
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        moment = datetime.now(UTC)
    return moment.strftime("%Y-%m-%dT%H-%M-%S.%f")


def _results(runs: Sequence[Run], hashes: Mapping[str, str], kinds: Mapping[str, str]) -> dict[str, Any]:
    first = runs[0]
    decoding = first.config.get("decoding") or None
    return {
        "results": {run.task.name: _metrics(run) for run in runs},
        "group_subtasks": {run.task.name: [] for run in runs},
        "configs": {run.task.name: _config(run, kinds[run.task.name]) for run in runs},
        "versions": {run.task.name: run.task.version for run in runs},
        "n-shot": {run.task.name: _shots(run) for run in runs},
        "higher_is_better": {
            run.task.name: {info.name.partition(",")[0]: info.higher_is_better for info in run.task.metrics}
            for run in runs
        },
        "n-samples": {run.task.name: {"original": run.n_samples, "effective": run.n_samples} for run in runs},
        "config": {
            "model": "lydite",
            "model_args": {"pretrained": first.model.source or first.model.name},
            "model_num_parameters": first.model.parameters,
            "model_dtype": first.model.dtype,
            "model_sha": first.model.fingerprint,
            "limit": first.config.get("limit"),
            "gen_kwargs": decoding,
            "fewshot_seed": first.config.get("seed"),
        },
        "date": _date(first.created),
        "lm_eval_version": None,
        "lydite_version": first.environment.get("lydite"),
        "transformers_version": first.environment.get("transformers"),
        "model_source": "lydite",
        "model_name": first.model.name,
        "model_name_sanitized": re.sub(r'[\\"<>:/|?*\[\]]+', "__", first.model.name),
        "max_length": first.model.max_tokens,
        "task_hashes": dict(hashes),
        "total_evaluation_time_seconds": str(sum(run.timing.seconds for run in runs)),
    }


def _date(created: str) -> float | None:
    try:
        return datetime.fromisoformat(created).timestamp()
    except ValueError:
        return None


def _shots(run: Run) -> int | None:
    shots = run.task.settings.get("shots")
    return shots if isinstance(shots, int) else None


def _metrics(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = {"alias": run.task.name, "sample_len": run.n_samples}
    for one in run.estimates:
        metric, _, kind = one.metric.partition(",")
        found[f"{metric},{kind or 'none'}"] = "N/A" if one.value is None else one.value
        found[f"{metric}_stderr,{kind or 'none'}"] = "N/A" if one.stderr is None else one.stderr
    return found


def _config(run: Run, kind: str) -> dict[str, Any]:
    metrics = [{"metric": info.name, "higher_is_better": info.higher_is_better} for info in run.task.metrics]
    return {"task": run.task.name, "output_type": kind, "num_fewshot": _shots(run), "metric_list": metrics}


def _kind(record: SampleRecord | None) -> str:
    """What lm-eval calls such requests."""
    requests = record.requests if record else ()
    if not requests or not isinstance(requests[0], ScoreRequest):
        return "generate_until"
    if len(requests) > 1:
        return "multiple_choice"
    return "loglikelihood" if requests[0].window == "none" else "loglikelihood_rolling"


# -------------------------------------------------------------------------------------------- samples


def _line(index: int, record: SampleRecord, run: Run) -> dict[str, Any]:
    sample = record.sample
    doc = sample.fields or {"id": sample.id, "input": sample.input, "choices": list(sample.choices)}
    target = str(sample.gold[0]) if len(sample.gold) == 1 else "" if not sample.targets else sample.targets[0]
    arguments = [_arguments(request) for request in record.requests]
    scores = [score for score in record.scores if score.by == "auto"]
    values = {
        score.metric.partition(",")[0]: _value(run, score.metric, score.value, score.stats)
        for score in scores
        if score.value is not None
    }
    answers = [_answer(output) for output in record.outputs]
    return {
        "doc_id": index,
        "doc": doc,
        "target": target,
        "arguments": {
            f"gen_args_{i}": {f"arg_{j}": value for j, value in enumerate(row)} for i, row in enumerate(arguments)
        },
        "resps": [[answer] for answer in answers],
        "filtered_resps": answers,
        "filter": "none",
        "metrics": list(dict.fromkeys(score.metric.partition(",")[0] for score in scores)),
        "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False, default=str)),
        "prompt_hash": _hash(str(arguments[0][0]) if arguments else ""),
        "target_hash": _hash(target),
        **values,
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _value(run: Run, metric: str, value: float, stats: Iterable[float]) -> Any:
    """The number; for perplexities (log-likelihood, units) as lm-eval writes them."""
    numbers = list(stats)
    is_rate = metric in ("word_perplexity", "byte_perplexity", "bits_per_byte", "perplexity") and len(numbers) == 2
    if not is_rate:
        return value
    return -numbers[0] if metric == "perplexity" else [-numbers[0], numbers[1]]


def _arguments(request: Request) -> list[Any]:
    if isinstance(request, ScoreRequest):
        front = _front(request.messages) if request.messages else request.context
        whole = request.window != "none" and not front
        return [request.continuation] if whole else [front, request.continuation]
    if isinstance(request, GenerateRequest):
        options = {"until": list(request.decoding.stop_strings), "max_gen_toks": request.decoding.max_new_tokens}
        options |= {"do_sample": request.decoding.do_sample}
        return [_front(request.messages) if request.messages else request.prompt, options]
    return [json.dumps(msgspec.to_builtins(request), ensure_ascii=False)]


def _front(messages: Sequence[Message]) -> str:
    """Messages as the JSON text in which lm-eval logs them."""
    return json.dumps([{"role": m.role, "content": m.content} for m in messages], ensure_ascii=False)


def _answer(output: Output) -> Any:
    if isinstance(output, LogProbs):
        return [str(output.total), str(output.greedy)]
    if isinstance(output, Completion):
        return output.text
    return json.dumps(msgspec.to_builtins(output), ensure_ascii=False)
