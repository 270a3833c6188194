"""Own tasks in Python: a file with a function `task()` that returns a lydite.types.Task.

The file runs as code, so it is only ever loaded from a path that was given. Contract: whatever its functions raise, or
return that does not fit, whenever they are called, is one TaskError with file and line; the samples that were finished
before stay in the run folder.
"""

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from lydite.data.files import check_file
from lydite.errors import LyditeError, TaskError
from lydite.tasks.common import fingerprint
from lydite.types import Context, Metric, Output, Request, Sample, Score, Task, View

LONGEST_MESSAGE = 400
"""Characters of a foreign exception that are shown."""
_END = object()
VIEWS = {"score", "generate", "label", "span"}


def load_python_file(path: Path) -> Task:
    """The Task that the function `task()` of a Python file returns. Runs the file."""
    check_file(path)
    name = f"lydite_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, f"{path} has no loader"
    loader = spec.loader
    assert loader is not None, f"{path} has no loader"
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickling look their module up by name.
    sys.modules[name] = module
    _call(path, loader.exec_module, module)
    make: Any = vars(module).get("task")
    if not callable(make):
        raise TaskError(f"{path}: no function task(); define one that returns a lydite.types.Task")
    task = _call(path, make)
    if not isinstance(task, Task):
        raise TaskError(f"{path}: task() returned a {type(task).__name__}, and a lydite.types.Task is needed")
    _check_shape(path, task)
    return replace(
        _guarded(path, task),
        fingerprint=task.fingerprint or fingerprint([task.name], [path]),
        origin={**task.origin, "task_file": str(path.resolve())},
    )


def _check_shape(path: Path, task: Task) -> None:
    """A dataclass takes anything; what everything after this relies on is looked at once."""
    wrong = {
        "name": not isinstance(task.name, str) or not task.name.strip(),
        "version": not isinstance(task.version, int),
        "views": not isinstance(task.views, Mapping) or not task.views or not set(task.views) <= VIEWS,
        "metrics": not isinstance(task.metrics, Sequence)
        or not task.metrics
        or not all(isinstance(metric, Metric) for metric in task.metrics),
    }
    for key, is_wrong in wrong.items():
        if is_wrong:
            raise TaskError(f"{path}: the task's {key} is {vars(task)[key]!r:.80}; see docs/adding-a-task.md")


def _guarded(path: Path, task: Task) -> Task:
    """The same task, whose functions name `path` and line where they fail."""

    def samples(split: str) -> Iterator[Sample]:
        rows = iter(_call(path, lambda: iter(task.samples(split))))
        while (sample := _call(path, next, rows, _END)) is not _END:
            yield _fits(path, "samples()", sample, Sample)

    def prompt(sample: Sample) -> Context:
        context: Context = _fits(path, "prompt()", _call(path, task.prompt, sample), Context)
        return context

    def shot(sample: Sample) -> tuple[str, str]:
        assert task.shot is not None
        solved: tuple[str, str] = _fits(path, "shot()", _call(path, task.shot, sample), tuple[str, str])
        return solved

    def score(sample: Sample, outputs: Sequence[Output]) -> list[Score]:
        found = _listed(path, "score()", task.score, sample, outputs)
        scores: list[Score] = _fits(path, "score()", found, list[Score])
        return scores

    def chance(sample: Sample) -> Mapping[str, float]:
        chances: dict[str, float] = _fits(path, "chance()", _call(path, task.chance, sample), dict[str, float])
        return chances

    return replace(
        task,
        samples=samples,
        prompt=prompt,
        shot=shot if task.shot else None,
        views={name: _guarded_view(path, name, view) for name, view in task.views.items()},
        score=score,
        metrics=tuple(_guarded_metric(path, metric) for metric in task.metrics),
        chance=chance,
    )


def _guarded_view(path: Path, name: str, view: View) -> View:
    def guarded(sample: Sample, context: Context) -> Sequence[Request]:
        what = f"the view {name!r}"
        requests: list[Request] = _fits(path, what, _listed(path, what, view, sample, context), list[Request])
        if not requests:
            raise TaskError(f"{path}: {what} made no request for sample {sample.id!r}")
        return requests

    return guarded


def _guarded_metric(path: Path, metric: Metric) -> Metric:
    finish, finish_rows = metric.finish, metric.finish_rows
    return replace(
        metric,
        finish=finish and (lambda sums: _call(path, finish, sums)),
        finish_rows=finish_rows and (lambda stats, weights: _call(path, finish_rows, stats, weights)),
    )


def _listed(path: Path, what: str, function: Callable[..., Iterable[Any]], *arguments: Any) -> list[Any]:
    """The list that a function returns; it may be a generator, which runs only while it is read."""
    found = _call(path, function, *arguments)
    if not isinstance(found, Iterable):
        raise TaskError(f"{path}: {what} returned a {type(found).__name__}, and a list is needed")
    return _call(path, list, found)  # type: ignore[no-any-return]


def _fits(path: Path, what: str, value: Any, kind: Any) -> Any:
    """`value`, if it would come back from a run folder as it is: records check their fields only when they are read."""
    try:
        msgspec.json.decode(msgspec.json.encode(value, enc_hook=_no_json), type=kind)
    except (msgspec.ValidationError, TypeError, ValueError, OverflowError) as error:
        raise TaskError(f"{path}: {what} gave what does not fit: {_line(error)}") from error
    return value


def _no_json(value: Any) -> Any:
    raise TypeError(f"a {type(value).__name__} cannot be stored; make it a plain number, text, list or dict")


def _call(path: Path, function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function of a user's file returns; whatever it raises becomes one line that names the place."""
    try:
        return function(*arguments)
    except LyditeError:
        raise
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise TaskError(f"{error.filename or path}{line}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        raise TaskError(f"{path}{_place(path, error)}: {type(error).__name__}: {_line(error)}".rstrip(": ")) from error


def _place(path: Path, error: BaseException) -> str:
    """Where in the user's file; where it was elsewhere (a record that a family cannot use), there."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    if own:
        return f", line {own[-1].lineno}"
    return f" (in {Path(frames[-1].filename).name}, line {frames[-1].lineno})"


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= LONGEST_MESSAGE else text[:LONGEST_MESSAGE] + "…"
