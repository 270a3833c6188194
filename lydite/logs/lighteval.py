"""lighteval's logs: results/MODEL/results_TIME.json, and details/MODEL/TIME/details_TASK_TIME.parquet for each task.

Two forms of details are read: one column a field (example, choices, metrics ...), and the later one with a column each
for the document, the model's response and the metrics. Details that were written as Python texts are not read, because
that would mean to evaluate them: their numbers stand as reported.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lydite.errors import DataError
from lydite.logs.tables import LoggedSample, LoggedTask, expect, number
from lydite.runs import content_hash
from lydite.types import Completion, GenerateRequest, ModelInfo, RequestKind, Sample

SYSTEM = "lighteval"


def is_results(content: Any) -> bool:
    """Whether a JSON file is a results file of lighteval."""
    return isinstance(content, dict) and {"config_general", "results"} <= content.keys()


def read_results(path: Path, content: Mapping[str, Any]) -> Iterator[LoggedTask]:
    """Every task of one results file."""
    general = expect(content["config_general"], dict, "config_general", path)
    results = expect(content["results"], dict, "results", path)
    model = _model(general)
    for task, found in results.items():
        if task == "all" or ":_average" in task:
            continue
        table = expect(found, dict, f"results of {task}", path)
        names = [name for name in table if not name.endswith("_stderr")]
        rows = _rows(path, task)
        versions = content.get("versions")
        version = versions.get(task) if isinstance(versions, dict) else None
        view: RequestKind = "generate" if any(row.requests for row in rows) else "score"
        yield LoggedTask(
            system=f"{SYSTEM} {str(general.get('lighteval_sha') or '?')[:12]}",
            model=model,
            task=task,
            version=str(version or 0),
            fingerprint="",
            view=view,
            settings={"shots": task.rsplit("|", 1)[-1]} if "|" in task else {},
            config={"limit": general.get("max_samples"), "generation": general.get("generation_parameters")},
            reported={name: (number(table[name]), number(table.get(f"{name}_stderr"))) for name in names},
            higher_is_better={},
            samples=rows,
            source=str(path),
            created=path.stem.removeprefix("results_"),
        )


def _model(general: Mapping[str, Any]) -> ModelInfo:
    inner = general.get("model_config")
    known = inner if isinstance(inner, dict) else {}
    name = str(general.get("model_name") or known.get("model_name") or "unnamed")
    dtype = general.get("model_dtype") or known.get("dtype")
    return ModelInfo(
        name=name,
        family="causal",
        rule="causal",
        can=("score", "generate"),
        dtype=str(dtype).removeprefix("torch.") if dtype else None,
        fingerprint=str(general.get("model_sha") or "") or content_hash([name, str(dtype)], 16),
        source=name,
    )


def _rows(path: Path, task: str) -> list[LoggedSample]:
    """The samples of a task; none where details were not saved."""
    parents = [parent for parent in path.parents if parent.name == "results"]
    if not parents:
        return []
    stamp = path.stem.removeprefix("results_")
    folder = parents[0].parent / "details" / path.parent.relative_to(parents[0]) / stamp
    file = folder / f"details_{task}_{stamp}.parquet"
    if not file.exists():
        return []
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(file).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    return [_sample(file, index, row) for index, row in enumerate(rows)]


def _sample(file: Path, index: int, row: Mapping[str, Any]) -> LoggedSample:
    doc = row.get("doc") or row.get("__doc__")
    later = isinstance(doc, dict)
    fields: Mapping[str, Any] = doc if isinstance(doc, dict) else row
    prompt = fields.get("query") if later else row.get("full_prompt") or row.get("example")
    if not isinstance(prompt, str):
        raise DataError(f"{file} row {index} has no prompt; it is no file of details, or of a release not known here")
    metrics = (row.get("metric") or row.get("__metric__")) if later else row.get("metrics")
    values = metrics if isinstance(metrics, dict) else {}
    answer = row.get("model_response") or row.get("__model_response__") if later else row
    texts = answer.get("text" if later else "predictions") if isinstance(answer, dict) else None
    choices = fields.get("choices") if isinstance(fields.get("choices"), list) else []
    gold = fields.get("gold_index")
    places = gold if isinstance(gold, list) else [gold]
    id = str(index)
    text = texts[0] if isinstance(texts, list) and texts and isinstance(texts[0], str) else None
    several = isinstance(choices, list) and len(choices) > 1
    return LoggedSample(
        sample=Sample(
            id=id,
            input=prompt,
            choices=tuple(map(str, choices or ())) if several else (),
            gold=tuple(place for place in places if isinstance(place, int)) if several else (),
            targets=() if several else tuple(map(str, choices or ())),
        ),
        requests=() if text is None else (GenerateRequest(sample_id=id, index=0, prompt=prompt),),
        outputs=() if text is None else (Completion(text=text, num_tokens=0, finish="stop"),),
        values={name: value for name, value in values.items() if value is not None},
    )
