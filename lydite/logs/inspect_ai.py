"""Inspect's logs: .eval (a zip of JSON files) and .json.

Each scorer is a metric: its letters are numbers as in Inspect (C 1, P 0.5, I and N 0), and epochs of one sample are
averaged. A sample that Inspect stopped with an error has no score.
"""

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lydite.errors import DataError
from lydite.logs.tables import LoggedSample, LoggedTask, expect, number, read_json
from lydite.runs import content_hash
from lydite.types import Completion, Failure, GenerateRequest, ModelInfo, Output, Sample

SYSTEM = "inspect"
LARGEST_PART = 512 * 2**20
"""Bytes of one file inside a zip; more is no log that a person made."""
_LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}


def is_log(content: Any) -> bool:
    """Whether a JSON file is a log of Inspect."""
    return isinstance(content, dict) and {"eval", "status"} <= content.keys()


def read_eval(path: Path) -> Iterator[LoggedTask]:
    """The one task of an .eval file."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            head: dict[str, Any] = {}
            for name in ("_journal/start.json", "start.json", "results.json", "header.json"):
                if name in names:
                    head |= expect(_part(path, archive, name), dict, name, path)
            parts = sorted(name for name in names if name.startswith("samples/") and name.endswith(".json"))
            head["samples"] = [_part(path, archive, name) for name in parts]
    except (zipfile.BadZipFile, NotImplementedError, OSError, zlib.error, EOFError, RuntimeError) as error:
        raise DataError(f"{path} is no .eval log that can be read here: {error}") from error
    if "eval" not in head:
        raise DataError(f"{path} is no log of Inspect: it has neither header.json nor start.json")
    yield from read_log(path, {"status": "started", **head})


def _part(path: Path, archive: zipfile.ZipFile, name: str) -> Any:
    if archive.getinfo(name).file_size > LARGEST_PART:
        raise DataError(f"{path}: {name} is larger than {LARGEST_PART} bytes")
    return read_json(Path(f"{path}/{name}"), archive.read(name))


def read_log(path: Path, content: Mapping[str, Any]) -> Iterator[LoggedTask]:
    """The one task of a log; DataError where it does not fit."""
    spec = expect(content["eval"], dict, "eval", path)
    rows = expect(content.get("samples") or [], list, "samples", path)
    results = content.get("results") or {}
    scorers = expect(results, dict, "results", path).get("scores") or []
    reported = {
        str(scorer.get("name")): _headline(scorer.get("metrics") or {})
        for scorer in expect(scorers, list, "scores", path)
        if isinstance(scorer, dict)
    }
    dataset = spec.get("dataset") or {}
    config = spec.get("config") or {}
    yield LoggedTask(
        system=f"{SYSTEM} {(spec.get('packages') or {}).get('inspect_ai', 'of unknown version')}",
        model=_model(spec),
        task=str(spec.get("task", "unnamed")),
        version=str(spec.get("task_version", 0)),
        fingerprint=content_hash([dataset.get("name"), dataset.get("location")]) if isinstance(dataset, dict) else "",
        view="generate",
        settings={"solver": str(spec.get("solver") or ""), **_plain(spec.get("task_args"))},
        config={
            **_plain(config),
            "generate": _plain((content.get("plan") or {}).get("config")),
            "status": content["status"],
        },
        reported=reported,
        higher_is_better={},
        samples=list(_samples(path, rows)),
        num_samples=results.get("completed_samples") if isinstance(results.get("completed_samples"), int) else None,
        created=str(spec.get("created", "")),
        source=str(path),
    )


def _model(spec: Mapping[str, Any]) -> ModelInfo:
    name = str(spec.get("model", "unnamed"))
    arguments = _plain(spec.get("model_args"))
    return ModelInfo(
        name=name,
        family="server",
        rule="causal",
        can=("generate",),
        fingerprint=content_hash([name, arguments, spec.get("model_base_url")], 16),
        source=name,
        settings=arguments,
    )


def _plain(value: Any) -> dict[str, Any]:
    """The settings that are single values."""
    found = value if isinstance(value, dict) else {}
    return {str(key): item for key, item in found.items() if isinstance(item, str | int | float | bool)}


def _headline(metrics: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Value and standard error: of accuracy, else of the mean, else of the first metric."""
    values = {name: number(found.get("value")) for name, found in metrics.items() if isinstance(found, dict)}
    names: list[str] = [name for name in ("accuracy", "mean") if name in values]
    names = names or [name for name in values if name != "stderr"]
    return (values[names[0]] if names else None), values.get("stderr")


def _samples(path: Path, rows: Sequence[Any]) -> Iterator[LoggedSample]:
    epochs: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if not isinstance(row, dict) or "id" not in row or "input" not in row:
            raise DataError(f"{path} has a sample without id or input")
        epochs.setdefault(str(row["id"]), []).append(row)
    for id, same in epochs.items():
        yield _sample(id, same)


def _sample(id: str, same: Sequence[Mapping[str, Any]]) -> LoggedSample:
    first = same[0]
    choices = tuple(str(choice) for choice in first.get("choices") or ())
    target = first.get("target", "")
    targets = tuple(str(one) for one in target) if isinstance(target, list) else (str(target),)
    letters = [ord(one) - ord("A") for one in targets if len(one) == 1]
    gold = tuple(place for place in letters if 0 <= place < len(choices))
    prompt = _text(first["input"])
    requests = tuple(GenerateRequest(sample_id=id, index=index, prompt=prompt) for index in range(len(same)))
    return LoggedSample(
        sample=Sample(id=id, input=prompt, choices=choices, gold=gold, targets=() if gold else targets),
        requests=requests,
        outputs=tuple(_output(row) for row in same),
        values=_values(same),
    )


def _text(value: Any) -> str:
    """A text, or messages with their roles."""
    if not isinstance(value, list):
        return str(value)
    turns = [turn for turn in value if isinstance(turn, dict)]
    texts = [_content(turn.get("content")) for turn in turns]
    if len(texts) == 1:
        return texts[0]
    return "\n\n".join(f"{turn.get('role')}: {text}" for turn, text in zip(turns, texts, strict=True))


def _content(value: Any) -> str:
    if isinstance(value, list):
        return "".join(str(part.get("text", "")) for part in value if isinstance(part, dict))
    return "" if value is None else str(value)


def _output(row: Mapping[str, Any]) -> Output:
    error = row.get("error")
    if error:
        message = error.get("message", "") if isinstance(error, dict) else error
        return Failure(reason=" ".join(str(message).split())[:300] or "Inspect stopped the sample with an error")
    output = row.get("output") or {}
    choices = output.get("choices") or [] if isinstance(output, dict) else []
    choice = choices[0] if choices and isinstance(choices[0], dict) else {}
    message = choice.get("message") or {}
    text = output.get("completion") if isinstance(output, dict) else None
    text = (
        text
        if isinstance(text, str) and text
        else _content(message.get("content") if isinstance(message, dict) else "")
    )
    usage = output.get("usage") if isinstance(output, dict) else None
    tokens = number(usage.get("output_tokens")) if isinstance(usage, dict) else None
    length = choice.get("stop_reason") in ("max_tokens", "model_length")
    return Completion(text=text, num_tokens=int(tokens or 0), finish="length" if length else "stop")


def _values(same: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Scorer to the mean over epochs; none where an epoch has no number."""
    tables: list[Any] = [
        row.get("scores") if isinstance(row.get("scores"), dict) and not row.get("error") else {} for row in same
    ]
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for table in tables for name in table or {}):
        numbers = [_number((table or {}).get(name)) for table in tables]
        known = [value for value in numbers if value is not None]
        found[name] = sum(known) / len(known) if known and len(known) == len(numbers) else None
    return found


def _number(score: Any) -> float | None:
    value = score.get("value") if isinstance(score, dict) else None
    return _LETTERS[value] if isinstance(value, str) and value in _LETTERS else number(value)
