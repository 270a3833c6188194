"""The settings of an evaluation as the command line states them, and how a run folder gives them back."""

import json
from pathlib import Path
from typing import Any, Literal

import msgspec

from lydite.errors import RunError, UserError
from lydite.runs import content_hash, find_runs, read_run, safe_name
from lydite.types import Decoding


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that shapes an evaluation, but the model."""

    tasks: tuple[str, ...]
    data_dir: str | None = None
    limit: int | None = None
    shots: int | None = None
    shots_by: Literal["task", "sample"] = "task"
    seed: int = 0
    chat: bool = False
    view: str | None = None
    decoding: dict[str, Any] = {}
    model: dict[str, Any] = {}
    """What `--set` says to the model: device_map, revision, batch_tokens ..."""

    def describe(self) -> str:
        """The settings that are not the default, in one line."""
        parts = [f"seed {self.seed}"]
        parts += [f"limit {self.limit} a task (partial)"] if self.limit else []
        parts += [f"shots {self.shots}"] if self.shots is not None else []
        parts += [f"shots by {self.shots_by}"] if self.shots_by != "task" else []
        parts += ["chat template"] if self.chat else []
        parts += [f"view {self.view}"] if self.view else []
        parts += [f"{key} {value}" for key, value in (self.decoding | self.model).items()]
        return ", ".join(parts)


def parse_set(pairs: list[str]) -> dict[str, Any]:
    """`--set key=value` to fields of Settings: `view` and `shots_by`, decoding options, and the rest for the model."""
    found: dict[str, Any] = {"decoding": {}, "model": {}}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"--set {pair!r} is not KEY=VALUE")
        value = _value(text.strip())
        if key == "shots_by":
            if value not in ("task", "sample"):
                raise UserError(f"--set shots_by is task or sample, not {text!r}")
            found[key] = value
        elif key == "view":
            found[key] = str(value)
        elif key in Decoding.__struct_fields__:
            found["decoding"][key] = [value] if key == "stop_strings" and isinstance(value, str) else value
        else:
            found["model"][key] = value
    _check_decoding(found["decoding"])
    return found


def _check_decoding(options: dict[str, Any]) -> None:
    try:
        msgspec.convert(options, Decoding)
    except (msgspec.ValidationError, ValueError) as error:
        raise UserError(f"--set: {error}") from error


def _value(text: str) -> Any:
    """JSON where it is JSON (numbers, true, lists), else the text itself."""
    try:
        return json.loads(text, parse_constant=lambda name: name)
    except json.JSONDecodeError:
        return text


def settings_of(folder: Path) -> Settings:
    """The settings that made the runs in `folder` (OUT, OUT/<model> or a leaf)."""
    runs = [read_run(leaf) for leaf in find_runs(folder)]
    whole_out = not (folder / "run.json").exists()
    requested = dict.fromkeys(
        run.environment.get("requested", run.task.name) if whole_out else _task_spec(run) for run in runs
    )
    found = {
        Settings(
            tasks=tuple(dict.fromkeys(name for names in requested for name in names.split(","))),
            data_dir=run.environment.get("data_dir"),
            limit=run.config["limit"],
            shots=run.task.settings.get("shots_asked"),
            shots_by=run.task.settings.get("shots_by", "task"),
            seed=run.config["seed"],
            chat=bool(run.task.settings.get("chat", False)),
            view=run.config.get("view_asked"),
        )
        for run in runs
    }
    if len({msgspec.json.encode(one) for one in found}) > 1:
        raise RunError(f"the runs in {folder} have different settings; name one of them: OUT/<model>/<task>")
    first = next(iter(found))
    return msgspec.structs.replace(first, decoding=runs[0].config["decoding"])


def _task_spec(run: Any) -> str:
    return str(run.environment.get("task_file", run.task.name))


def default_out(settings: Settings, dtype: str) -> Path:
    """runs/<tasks>-<hash of the settings>: the same command finds its folder again, other models join it."""
    names = "-".join(safe_name(Path(task).stem) for task in settings.tasks)
    plain = msgspec.to_builtins(settings) | {"dtype": dtype}
    return Path("runs") / f"{names[:40].rstrip('-')}-{content_hash(plain, 6)}"
