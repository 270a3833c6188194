"""lm-evaluation-harness's logs: results_TIME.json, and samples_TASK_TIME.jsonl for each task beside it.

A sample's id is its `doc_hash`, so that the same document is the same sample in every log, whatever the prompt around it
was. Lines of one document under several filters are one sample; its metrics are then called METRIC,FILTER as in
results.json, otherwise METRIC. Older forms of the files (arguments as lists) are read too.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lydite.errors import DataError
from lydite.logs.tables import LoggedSample, LoggedTask, expect, number, read_json
from lydite.runs import content_hash
from lydite.types import (
    Completion,
    Decoding,
    Failure,
    GenerateRequest,
    LogProbs,
    ModelInfo,
    Output,
    Request,
    RequestKind,
    Sample,
    ScoreRequest,
)

SYSTEM = "lm-eval"
_NOT_METRICS = ("name", "alias", "sample_len", "sample_count")
_WHERE = ("batch_size", "batch_sizes", "device", "use_cache", "bootstrap_iters")
"""Of their config: how it was run, not what was asked."""
_SETTINGS = ("system_instruction", "chat_template_sha", "fewshot_as_multiturn", "max_length")


def is_results(content: Any) -> bool:
    """Whether a JSON file is a results file of lm-eval."""
    return isinstance(content, dict) and {"results", "configs", "versions"} <= content.keys()


def read_results(path: Path, content: Mapping[str, Any]) -> Iterator[LoggedTask]:
    """Every task of one results file. DataError where it or its samples do not fit."""
    results = expect(content["results"], dict, "results", path)
    configs = expect(content["configs"], dict, "configs", path)
    stamp = path.stem.removeprefix("results").removeprefix("_")
    model = _model(content, path)
    for task, found in results.items():
        if task not in configs:
            continue  # a group: its tasks are there
        yield _task(path, content, model, task, expect(found, dict, f"results of {task}", path), stamp)


def _task(
    path: Path, content: Mapping[str, Any], model: ModelInfo, task: str, found: Mapping[str, Any], stamp: str
) -> LoggedTask:
    reported = _reported(found)
    several = len({name.partition(",")[2] for name in reported}) > 1
    samples_file = path.with_name(f"samples_{task}_{stamp}.jsonl" if stamp else f"samples_{task}.jsonl")
    config = expect(content["configs"][task], dict, f"config of {task}", path)
    kind = str(config.get("output_type", "generate_until"))
    view: RequestKind = "generate" if kind == "generate_until" else "score"
    higher = _at(content, "higher_is_better", task) or {}
    given = content.get("config") or {}
    samples = list(_samples(samples_file, view, several)) if samples_file.exists() else []
    shots = _at(content, "n-shot", task)
    settings = {"shots": shots, "output_type": kind} | {key: content.get(key) for key in _SETTINGS}
    asked = {key: value for key, value in given.items() if key not in _WHERE and not key.startswith("model")}
    counts = _at(content, "n-samples", task) or {}
    return LoggedTask(
        system=f"{SYSTEM} {content.get('lm_eval_version') or 'of unknown version'}",
        model=model,
        task=task,
        version=str(_at(content, "versions", task) or 0),
        fingerprint=str(_at(content, "task_hashes", task) or ""),
        view=view,
        settings={key: value for key, value in settings.items() if value not in (None, "", False)},
        config={
            "generation_kwargs": config.get("generation_kwargs"),
            "description": config.get("description"),
            **asked,
        },
        reported={_short(name, several): value for name, value in reported.items()},
        higher_is_better={
            _short(name, several): bool(higher.get(name.partition(",")[0], True))
            for name in reported
            if isinstance(higher, dict)
        },
        samples=samples,
        num_samples=counts.get("effective") if isinstance(counts, dict) else None,
        created=_time(content.get("date")),
        source=str(path),
        environment=_environment(content, given),
    )


def _model(content: Mapping[str, Any], path: Path) -> ModelInfo:
    config = expect(content.get("config") or {}, dict, "config", path)
    arguments = config.get("model_args") or {}
    if isinstance(arguments, str):
        arguments = dict(part.partition("=")[::2] for part in arguments.split(",") if part)
    expect(arguments, dict, "model_args", path)
    named = content.get("model_name") or arguments.get("pretrained") or arguments.get("model") or config.get("model")
    name = str(named or "unnamed").rstrip("/")
    kind = str(config.get("model") or content.get("model_source") or "unknown")
    seq2seq = "seq2seq" in str(arguments.get("backend", ""))
    identity = [name, kind, arguments, config.get("model_sha"), config.get("model_revision")]
    parameters = config.get("model_num_parameters")
    return ModelInfo(
        name=name.rsplit("/", 1)[-1] if name.startswith(("/", "./", "~")) else name,
        family="seq2seq" if seq2seq else "causal",
        rule="seq2seq" if seq2seq else "causal",
        can=("score", "generate"),
        parameters=parameters if isinstance(parameters, int) and not isinstance(parameters, bool) else None,
        dtype=str(config.get("model_dtype") or arguments.get("dtype") or "").removeprefix("torch.") or None,
        fingerprint=str(config.get("model_sha") or "") or content_hash(identity, 16),
        source=str(named or ""),
        settings={"backend": kind, **{key: str(value) for key, value in arguments.items() if key != "pretrained"}},
    )


def _reported(found: Mapping[str, Any]) -> dict[str, tuple[float | None, float | None]]:
    """METRIC,FILTER to value and standard error."""
    names = [name for name in found if name not in _NOT_METRICS and "_stderr," not in name and "," in name]
    errors = {name: "_stderr,".join(name.split(",", 1)) for name in names}
    return {name: (number(found[name]), number(found.get(errors[name]))) for name in names}


def _short(name: str, several: bool) -> str:
    return name if several else name.partition(",")[0]


def _at(content: Mapping[str, Any], key: str, task: str) -> Any:
    table = content.get(key)
    return table.get(task) if isinstance(table, dict) else None


def _time(date: Any) -> str:
    stamp = number(date)
    try:
        return "" if stamp is None else datetime.fromtimestamp(stamp, UTC).isoformat(timespec="seconds")
    except (OverflowError, OSError, ValueError):
        return ""


def _environment(content: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, str]:
    found = {key: given.get(key) for key in _WHERE} | {"transformers": content.get("transformers_version")}
    return {key: str(value) for key, value in found.items() if value not in (None, "", [])}


# -------------------------------------------------------------------------------------------- samples


def _samples(path: Path, view: RequestKind, several: bool) -> Iterator[LoggedSample]:
    """The documents of a samples file, each once, with the metrics of all its filters."""
    found: dict[Any, LoggedSample] = {}
    seen: dict[str, int] = {}
    for line_number, line in enumerate(_lines(path), 1):
        where = Path(f"{path} line {line_number}")
        row = expect(read_json(where, line), dict, "the line", where)
        if "doc_id" not in row or "arguments" not in row:
            raise DataError(f"{where} is no sample of lm-eval: it lacks doc_id or arguments")
        values = _values(row, several)
        key = json.dumps(row["doc_id"])
        if key in found:
            found[key].values.update(values)
        else:
            found[key] = _sample(row, view, values, seen, where)
    yield from found.values()


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            yield from (line for line in file if line.strip())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _values(row: Mapping[str, Any], several: bool) -> dict[str, Any]:
    names = row.get("metrics")
    if not isinstance(names, list):  # releases that do not list them put them after the hashes
        known = [
            "doc_id",
            "doc",
            "target",
            "arguments",
            "resps",
            "filtered_resps",
            "filter",
            "metrics",
            "doc_hash",
            "prompt_hash",
            "target_hash",
        ]
        names = [name for name in row if name not in known]
    end = f",{row.get('filter', 'none')}" if several else ""
    return {f"{name}{end}": row.get(name) for name in map(str, names)}


def _sample(
    row: Mapping[str, Any], view: RequestKind, values: dict[str, Any], seen: dict[str, int], where: Path
) -> LoggedSample:
    doc = row.get("doc")
    base = str(row.get("doc_hash") or content_hash(doc, 64))[:16]
    seen[base] = seen.get(base, 0) + 1
    id = base if seen[base] == 1 else f"{base}-{seen[base]}"
    arguments = _arguments(row["arguments"], where)
    answers = expect(row.get("resps"), list, "resps", where)
    if len(answers) != len(arguments):
        raise DataError(f"{where} has {len(arguments)} requests but {len(answers)} answers")
    pairs = [_pair(view, id, index, a, b) for index, (a, b) in enumerate(zip(arguments, answers, strict=True))]
    choices = _choices(arguments) if view == "score" else ()
    target = str(row.get("target", ""))
    gold = (int(target),) if choices and target.isdecimal() and int(target) < len(choices) else ()
    sample = Sample(
        id=id,
        input=str(arguments[0][0]) if arguments else "",
        choices=choices,
        gold=gold,
        targets=() if gold or not target else (target,),
        fields=doc if isinstance(doc, dict) else {"doc": doc},
    )
    return LoggedSample(sample, tuple(a for a, _ in pairs), tuple(b for _, b in pairs), values)


def _arguments(value: Any, where: Path) -> list[list[Any]]:
    """Each request's arguments, from {"gen_args_0": {"arg_0": ...}} or from lists."""
    rows = list(value.values()) if isinstance(value, dict) else value
    found = [list(row.values()) if isinstance(row, dict) else row for row in expect(rows, list, "arguments", where)]
    for row in found:
        if not isinstance(row, list) or not row:
            raise DataError(f"{where} has a request without arguments")
    return found


def _choices(arguments: list[list[Any]]) -> tuple[str, ...]:
    """What there is to choose among: the continuations, or the contexts where the continuation is one. Requests that ask
    for a continuation again, without its question (acc_mutual_info), come after the choices and are none."""
    pairs = [(str(row[0]), str(row[1])) for row in arguments if len(row) > 1]
    continuations = [continuation for _, continuation in pairs]
    if len(set(continuations)) == 1:
        texts = [context for context, _ in pairs]
    else:
        first = next((i for i, text in enumerate(continuations) if text in continuations[:i]), len(continuations))
        texts = continuations[:first]
    return tuple(text.strip() or text for text in texts) if len(texts) > 1 else ()


def _pair(view: RequestKind, id: str, index: int, arguments: list[Any], answer: Any) -> tuple[Request, Output]:
    first = arguments[0] if isinstance(arguments[0], str) else json.dumps(arguments[0], ensure_ascii=False)
    while isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if view == "generate":
        text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
        options = arguments[1] if len(arguments) > 1 and isinstance(arguments[1], dict) else {}
        request = GenerateRequest(sample_id=id, index=index, prompt=first, decoding=_decoding(options))
        return request, Completion(text=text, num_tokens=0, finish="stop")
    whole = len(arguments) < 2  # a document: its text is the only argument
    continuation = first if whole else str(arguments[1])
    asked = ScoreRequest(
        sample_id=id,
        index=index,
        context="" if whole else first,
        continuation=continuation,
        window="disjoint" if whole else "none",
    )
    total = number(answer[0] if isinstance(answer, list) and answer else answer)
    if total is None:
        return asked, Failure(reason="the log has no log-likelihood")
    greedy = isinstance(answer, list) and len(answer) > 1 and str(answer[1]) == "True"
    return asked, LogProbs(tokens=(continuation,), logprobs=(total,), greedy=greedy, rule="causal")


def _decoding(options: Mapping[str, Any]) -> Decoding:
    until = options.get("until") or ()
    stops = tuple(str(stop) for stop in ([until] if isinstance(until, str) else until) if stop)
    length = number(options.get("max_gen_toks"))
    return Decoding(
        max_new_tokens=max(1, int(length)) if length else Decoding().max_new_tokens,
        do_sample=options.get("do_sample") is True,
        stop_strings=stops,
    )
