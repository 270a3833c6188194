"""Finding logs in what a person names, and writing them as run folders."""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lydite.errors import DataError
from lydite.logs import inspect_ai, lighteval, lm_eval
from lydite.logs.tables import LoggedTask, as_run, read_json
from lydite.runs import safe_name, write_json, write_samples

LARGEST_JSON = 4 * 2**30
_DEPTH = ("*", "*/*", "*/*/*", "*/*/*/*")


def as_runs(paths: Sequence[Path], into: Path) -> list[Path]:
    """The paths, in which logs of other systems are replaced by run folders written under `into`.

    Folders that hold our own runs stay as they are. A path with neither stays too: whoever reads it says what is wrong.
    """
    found: list[Path] = []
    for number, path in enumerate(paths):
        if _holds_runs(path):
            found.append(path)
            continue
        # The name of the log's folder tells models of one name apart.
        out = into / str(number) / safe_name(path.resolve().name)
        found.append(out if write_runs(path, out) else path)
    return found


def write_runs(path: Path, out: Path) -> int:
    """Writes the logs at `path` as run folders OUT/<model>/<task>; returns how many there are."""
    logs = latest(_read(path))
    for log in logs:
        folder = out / safe_name(log.model.name) / safe_name(log.task)
        run, records = as_run(log)
        folder.mkdir(parents=True, exist_ok=True)
        write_samples(folder, records)
        write_json(folder / "run.json", run)
    return len(logs)


def latest(logs: Iterable[LoggedTask]) -> list[LoggedTask]:
    """One log a model and task: the last one made; the others are named on stderr."""
    kept: dict[tuple[str, str], LoggedTask] = {}
    for log in logs:
        key = (log.model.name, log.task)
        other = kept.get(key)
        if other is not None:
            older, log = sorted((other, log), key=lambda one: (one.created, one.source))
            print(f"lydite: {log.model.name} on {log.task}: {older.source} is older and left out", file=sys.stderr)
        kept[key] = log
    return list(kept.values())


def _holds_runs(path: Path) -> bool:
    return any((path / name).exists() for name in ("run.json",)) or any(
        next(path.glob(pattern), None) for pattern in ("*/run.json", "*/*/run.json")
    )


def _read(path: Path) -> Iterator[LoggedTask]:
    """All logs in a file or below a folder."""
    if path.is_file():
        named = True
        files = [path]
    else:
        named = False
        files = sorted({file for depth in _DEPTH for file in path.glob(depth) if _may_be_log(file)})
    for file in files:
        yield from _read_file(file, named)


def _may_be_log(file: Path) -> bool:
    return file.is_file() and (
        file.suffix == ".eval" or re.fullmatch(r"results.*\.json|.*_.*\.json", file.name) is not None
    )


def _read_file(file: Path, named: bool) -> Iterator[LoggedTask]:
    if file.suffix == ".eval":
        yield from inspect_ai.read_eval(file)
        return
    if file.suffix != ".json":
        raise DataError(f"{file} is no log; name a results_*.json, an .eval or .json log, or a folder with them")
    content = read_json(file)
    if lm_eval.is_results(content):
        yield from lm_eval.read_results(file, content)
    elif lighteval.is_results(content):
        yield from lighteval.read_results(file, content)
    elif inspect_ai.is_log(content):
        yield from inspect_ai.read_log(file, content)
    elif named:
        raise DataError(f"{file} is no log of lm-eval, lighteval or Inspect")
