"""The settings of an evaluation as the command line states them, and how a run folder gives them back."""

import json
from pathlib import Path
from typing import Any, Literal

import msgspec

from lydite.errors import RunError, UserError
from lydite.lm_eval import PREFIX
from lydite.runs import content_hash, find_runs, read_run, safe_name
from lydite.types import Decoding

_TEXTS = ("stop_strings", "choices")
"""Options that are lists of texts; one text is a list of one."""
COMMAND = "command"
"""Entry of a run's environment that holds the Settings of its command as JSON."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that shapes an evaluation, but the model."""

    tasks: tuple[str, ...]
    data_dir: str | None = None
    include_path: str | None = None
    """Folder with YAML files of lm-evaluation-harness."""
    limit: int | None = None
    shots: int | None = None
    shots_by: Literal["first_n", "task", "sample"] | None = None
    seed: int = 0
    chat: bool = False
    view: str | None = None
    prompt: Literal["input"] | None = None
    """`input`: a sample's input alone, without the task's words."""
    decoding: dict[str, Any] = {}
    model: dict[str, Any] = {}
    """What `--set` says to the model: device_map, revision, batch_tokens ..."""

    def describe(self) -> str:
        """The settings that are not the default, in one line."""
        parts = [f"seed {self.seed}"]
        parts += [f"limit {self.limit} a task (partial)"] if self.limit else []
        parts += [f"shots {self.shots}"] if self.shots is not None else []
        parts += [f"shots by {self.shots_by}"] if self.shots_by else []
        parts += ["chat template"] if self.chat else []
        parts += [f"view {self.view}"] if self.view else []
        parts += [f"prompt {self.prompt}"] if self.prompt else []
        parts += [f"{key} {value}" for key, value in (self.decoding | self.model).items()]
        return ", ".join(parts)


def task_names(text: str) -> tuple[str, ...]:
    """The words of `--tasks`; task files by their whole path, so that a run can be repeated from another folder."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UserError("name the --tasks; `lydite tasks` lists them")
    return tuple(dict.fromkeys(map(_whole, names)))


def _whole(name: str) -> str:
    if name.startswith(PREFIX) and name.endswith(".yaml"):
        return PREFIX + str(Path(name.removeprefix(PREFIX)).absolute())
    return str(Path(name).absolute()) if name.endswith((".toml", ".py")) else name


def parse_set(pairs: list[str]) -> dict[str, Any]:
    """`--set key=value` to fields of Settings: `view`, `prompt` and `shots_by`, decoding options, and the rest for the model."""
    found: dict[str, Any] = {"decoding": {}, "model": {}}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"--set {pair!r} is not KEY=VALUE")
        value = text.strip() if key == "regex" else value_of(text.strip())
        if key == "shots_by":
            if value not in ("first_n", "task", "sample"):
                raise UserError(f"--set shots_by is first_n, task or sample, not {text!r}")
            found[key] = value
        elif key == "prompt":
            if value != "input":
                raise UserError(f"--set prompt is input (a sample's input alone), not {text!r}")
            found[key] = value
        elif key == "view":
            found[key] = str(value)
        elif key in Decoding.__struct_fields__:
            found["decoding"][key] = [value] if key in _TEXTS and isinstance(value, str) else value
        else:
            found["model"][key] = value
    _check_decoding(found["decoding"])
    return found


def _check_decoding(options: dict[str, Any]) -> None:
    try:
        msgspec.convert(options, Decoding)
    except (msgspec.ValidationError, ValueError) as error:
        raise UserError(f"--set: {error}") from error


def value_of(text: str) -> Any:
    """JSON where it is JSON (numbers, true, lists), else the text itself."""
    try:
        return json.loads(text, parse_constant=lambda name: name)
    except json.JSONDecodeError:
        return text


def settings_of(folder: Path) -> Settings:
    """The settings of the command that made the runs in `folder` (OUT, OUT/<model> or a leaf)."""
    runs = [read_run(leaf) for leaf in find_runs(folder)]
    commands = dict.fromkeys(run.environment.get(COMMAND, "") for run in runs)
    if "" in commands:
        raise RunError(f"{folder} holds a run that `lydite evaluate` did not make, so its settings are not known")
    try:
        found = [msgspec.json.decode(command, type=Settings) for command in commands]
    except msgspec.DecodeError as error:
        raise RunError(f"the settings of {folder} cannot be read ({error}); state them instead of --from") from error
    if (folder / "run.json").exists():
        task = runs[0].environment.get("task_file", runs[0].task.name)
        return msgspec.structs.replace(found[0], tasks=(task,))
    merged = msgspec.structs.replace(found[0], tasks=tuple(dict.fromkeys(name for one in found for name in one.tasks)))
    if any(msgspec.structs.replace(one, tasks=merged.tasks) != merged for one in found):
        raise RunError(f"the runs in {folder} have different settings; name one of them: OUT/<model>/<task>")
    return merged


def default_out(settings: Settings, dtype: str) -> Path:
    """runs/<tasks>-<hash of the settings>: the same command finds its folder again, other models join it."""
    names = [safe_name(Path(task).stem) for task in settings.tasks]
    # Where the data lies does not matter: its content is in the fingerprints of the tasks.
    plain = msgspec.to_builtins(msgspec.structs.replace(settings, data_dir=None, tasks=tuple(names)))
    del plain["include_path"]
    if plain["prompt"] is None:
        del plain["prompt"]
    return Path("runs") / f"{'-'.join(names)[:40].rstrip('-')}-{content_hash(plain | {'dtype': dtype}, 6)}"
