"""The recipe: everything that decides what a run of `lydite pretrain` learns, in one TOML file.

    [model]        what is trained: a family of transformers with overrides of its config, or a folder to continue from
    [data]         what it reads: a corpus folder, plain text files, or parallel files
    [[objective]]  what it is asked to learn, one table each
    [training]     options named as in transformers
    [eval] [save] [log]

An n-gram model (family = "ngram") is counted and not trained: it needs [model] and [data] alone (counted.py).

Contract: strict. An unknown key is refused in one line that names the nearest known one; `--set a.b=value` means exactly
what the same line in the file would. Paths in the file are seen from the file, paths in `--set` from where the command
runs; both may begin with a variable of the environment ($LYDITE_DATA/multi30k). No torch here.
"""

import difflib
import glob
import itertools
import json
import tomllib
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from lydite.data.paths import with_variable
from lydite.errors import UserError
from lydite.training.schedules import Schedule


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the recipe."""


class ModelTable(_Table, frozen=True, kw_only=True):
    """What is trained."""

    family: str = ""
    """model_type of transformers (gpt2, llama, bert, t5 ...) or one of ours (lydite_transformer, lydite_lstm, ngram)."""
    init: str = ""
    """A checkpoint folder whose weights to start from, instead of `family`."""
    config: dict[str, Any] = {}
    """Overrides of the family's config; vocab_size and the special tokens come from the tokenizer."""
    attention: Literal["", "sdpa", "eager"] = ""
    """Attention of transformers; empty: what it chooses, but `eager` in bfloat16 on a CPU, where it is faster."""


class DataTable(_Table, frozen=True, kw_only=True):
    """What is read: one of `corpus`, `text` and `source` with `target`."""

    corpus: str = ""
    """Folder that `lydite prepare` made."""
    text: list[str] = []
    """Text files (or patterns such as docs/*.md), one document each, plain, .gz or .zst."""
    validation_text: list[str] = []
    """Their validation files; none: the last part of each text, see `validation`."""
    source: str = ""
    target: str = ""
    """Parallel files, a sentence a line, plain, .gz or .zst."""
    validation_source: str = ""
    validation_target: str = ""
    tokenizer: str = ""
    """Folder of a tokenizer, or `characters`; empty: the corpus's or the model's own."""
    validation: float = 0.1
    """Part of each text that is held out, at its end."""


class TrainingTable(_Table, frozen=True, kw_only=True):
    """How it is trained. Counts of rows and tokens are of a whole step, over all processes."""

    max_steps: int
    batch_size: int = 0
    """Rows of a step."""
    batch_tokens: int = 0
    """Instead of batch_size: padded positions of a step; needs `length_window`."""
    length_window: int = 0
    """So many rows are sorted by length before they are cut into steps (which are shuffled); 0: none are."""
    gradient_accumulation_steps: int = 1
    """Into how many parts each process cuts its rows of a step; changes memory, not the result."""
    learning_rate: float = 1e-3
    schedule: Schedule = "cosine"
    warmup_steps: int = 0
    decay_steps: int = 0
    """Of wsd."""
    min_lr_rate: float = 0.0
    """What cosine, linear and wsd end at, as a part of the learning rate."""
    optimizer: Literal["adamw", "muon", "adafactor"] = "adamw"
    weight_decay: float = 0.1
    decay_embeddings: bool = True
    """Whether weight decay also shrinks embeddings; norms and biases it never does."""
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_epsilon: float = 1e-8
    muon_momentum: float = 0.95
    max_grad_norm: float = 1.0
    """0: gradients are not clipped."""
    dtype: Literal["float32", "bfloat16", "autocast"] = "float32"
    """`bfloat16`: weights and activations in bfloat16 with float32 masters; `autocast`: only products in bfloat16."""
    gradient_checkpointing: bool = False
    compile: bool = False
    """torch.compile of the network's blocks."""
    average: Literal["none", "ema", "last"] = "none"
    """What is evaluated and saved at the end: the last weights, their moving average, or the mean of checkpoints."""
    average_decay: float = 0.999
    average_last: int = 5
    """Checkpoints that `last` averages."""
    seed: int = 0
    on_nan: Literal["stop", "skip"] = "stop"
    """What happens to a step whose loss or gradient is not finite, or whose loss explodes (see guard.py)."""
    explode_factor: float = 4.0
    """A loss above so many times the mean of the last 100 steps explodes; 0: none does."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Of several processes: each holds the whole network, or a shard of it."""


class EvalTable(_Table, frozen=True, kw_only=True):
    """What is measured on the way."""

    every: int = 0
    """Steps between validations; 0: only at the end."""
    max_rows: int = 0
    """Rows of a validation; 0: all."""
    batch_size: int = 0
    """Rows at a time; 0: as in training."""
    patience: int = 0
    """So many validations without a lower loss end the training, and the best weights are kept; 0: never."""
    tasks: list[str] = []
    """Tasks of `lydite evaluate` to run after each validation."""
    limit: int = 0
    """Samples of each task; 0: all."""
    prompts: list[str] = []
    """Texts to continue after each validation, shown on the training page."""
    max_new_tokens: int = 120
    temperature: float = 0.8


class SaveTable(_Table, frozen=True, kw_only=True):
    """Checkpoints."""

    every: int = 500
    keep: int = 2
    """Checkpoints that are kept, beside the best one of `eval.patience`."""


class LogTable(_Table, frozen=True, kw_only=True):
    """What is written down."""

    every: int = 1
    """Steps between lines of log.jsonl."""
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] = []


class Recipe(_Table, frozen=True, kw_only=True):
    """A whole recipe."""

    model: ModelTable
    data: DataTable
    objective: list[dict[str, Any]]
    training: TrainingTable
    eval: EvalTable = EvalTable()
    save: SaveTable = SaveTable()
    log: LogTable = LogTable()


_PATHS = ("corpus", "text", "validation_text", "source", "target", "validation_source", "validation_target")


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in `path` with `overrides` ("training.max_steps=100"). Raises UserError, in one line."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"there is no recipe {path}; recipes/ of the repository has some to start from") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}") from error
    _seen_from(tables, path.parent)
    for pair in overrides:
        _set(tables, pair)
    _with_variables(tables)
    return make_recipe(tables, str(path))


def make_recipe(tables: Mapping[str, Any], shown: str = "recipe") -> Recipe:
    """A recipe from plain tables; `shown` names it in messages."""
    _check_keys(tables, Recipe, shown, "")
    tables = _counted(tables, shown)
    try:
        recipe = msgspec.convert(tables, Recipe)
    except msgspec.ValidationError as error:
        raise UserError(f"{shown}: {_plain(str(error))}") from error
    _check(recipe, shown)
    return recipe


def is_counted(model: ModelTable) -> bool:
    """Whether the model is an n-gram table."""
    return model.family in COUNTED


COUNTED = ("ngram", "lydite_ngram")
"""Families that are counted and not trained."""


def kind_of(objective: Mapping[str, Any]) -> str:
    """An objective's name; `prefix:encoder-decoder` where that architecture was chosen, which is another network."""
    name = str(objective["name"])
    return f"{name}:encoder-decoder" if objective.get("architecture") == "encoder-decoder" else name


def _counted(tables: Mapping[str, Any], shown: str) -> Mapping[str, Any]:
    """The recipe of an n-gram model with the tables that it does not need; UserError where it has them."""
    model = tables.get("model")
    if not isinstance(model, Mapping) or model.get("family") not in COUNTED:
        return tables
    for name in ("objective", "training", "save"):
        if name in tables:
            raise UserError(f"{shown}: an n-gram model is counted in one pass; leave [{name}] out")
    return {**tables, "objective": [{"name": "causal"}], "training": {"max_steps": 1, "batch_size": 1}}


def _plain(message: str) -> str:
    """msgspec's words with the place first: `training.max_steps: Expected ...`."""
    what, _, where = message.partition(" - at ")
    return f"{where.strip('`').removeprefix('$.')}: {what}" if where else what


def _seen_from(tables: dict[str, Any], folder: Path) -> None:
    """Makes the paths of a file absolute; what has an unexpected type is left for the check of types."""

    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return [whole(item) for item in value]
        if not isinstance(value, str) or not value or value.startswith("$"):
            return value
        return str((folder / Path(value).expanduser()).absolute())

    _each_path(tables, whole)


def _with_variables(tables: dict[str, Any]) -> None:
    """Puts variables of the environment into paths; UserError for one that is not set."""

    def filled(value: Any) -> Any:
        if isinstance(value, list):
            return [filled(item) for item in value]
        return with_variable(value) if isinstance(value, str) else value

    _each_path(tables, filled)


def _each_path(tables: dict[str, Any], change: Callable[[Any], Any]) -> None:
    """Changes every path of the tables in place."""
    data, model = tables.get("data"), tables.get("model")
    if isinstance(data, dict):
        for key in _PATHS:
            if key in data:
                data[key] = change(data[key])
        if data.get("tokenizer") not in (None, "", "characters"):
            data["tokenizer"] = change(data["tokenizer"])
    if isinstance(model, dict) and "init" in model:
        model["init"] = change(model["init"])
    for objective in tables["objective"] if isinstance(tables.get("objective"), list) else []:
        if isinstance(objective, dict) and "corpus" in objective:
            objective["corpus"] = change(objective["corpus"])


def _set(tables: dict[str, Any], pair: str) -> None:
    """Applies one `a.b=value`; a number in the path counts the objectives from 0."""
    key, equals, text = pair.partition("=")
    words = key.strip().split(".")
    if not equals or not all(words):
        raise UserError(f"--set {pair!r} is not KEY=VALUE, such as training.max_steps=100")
    if len(words) == 1:
        raise UserError(f"--set {key} names no table; write training.{key}=... or another table before the dot")
    place: Any = tables
    for word, following in itertools.pairwise(words):
        if isinstance(place, list):
            place = place[_index(word, len(place), pair)]
        else:
            place = place.setdefault(word, [] if following.isdigit() else {})
        if not isinstance(place, dict | list):
            raise UserError(f"--set {pair!r}: {word} is a value, not a table")
    value = _value(text.strip())
    if isinstance(place, list):
        place[_index(words[-1], len(place), pair)] = value
        return
    wants_list = words[0] in ("data", "eval", "log") and words[-1] in _LISTS
    place[words[-1]] = [value] if wants_list and not isinstance(value, list) else value


_LISTS = ("text", "validation_text", "tasks", "prompts", "trackers")


def _index(word: str, size: int, pair: str) -> int:
    if not word.isdigit() or int(word) >= size:
        raise UserError(f"--set {pair!r}: {word} is none of the {size} objectives; they count from 0")
    return int(word)


def _value(text: str) -> Any:
    """JSON where it is JSON (numbers, true, lists), else the text itself."""
    try:
        return json.loads(text, parse_constant=lambda name: name)
    except json.JSONDecodeError:
        return text


def _check_keys(tables: Mapping[str, Any], record: type[Any], shown: str, place: str) -> None:
    fields = {field.name: field.type for field in msgspec.structs.fields(record)}
    for key, value in tables.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1, 0.5)
            mend = f"did you mean {near[0]}?" if near else f"known are {', '.join(fields)}"
            raise UserError(f"{shown}: unknown key {place}{key}; {mend}")
        inner = fields[key]
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct) and isinstance(value, Mapping):
            _check_keys(value, inner, shown, f"{place}{key}.")


def _check(recipe: Recipe, shown: str) -> None:
    """What types cannot say. Raises UserError for the first thing that does not fit."""
    for problem in _problems(recipe):
        raise UserError(f"{shown}: {problem}")


def _problems(recipe: Recipe) -> typing.Iterator[str]:
    model, data, training = recipe.model, recipe.data, recipe.training
    if bool(model.family) == bool(model.init):
        yield "[model] needs family or init, one of them"
    if sum(map(bool, (data.corpus, data.text, data.source))) != 1:
        yield "[data] needs one of corpus, text, and source with target"
    if bool(data.source) != bool(data.target) or bool(data.validation_source) != bool(data.validation_target):
        yield "[data] source and target go together"
    if data.text and not data.tokenizer and not model.init:
        yield 'data.text needs data.tokenizer: "characters" or the folder of a tokenizer'
    if not recipe.objective:
        yield "there is no [[objective]] table"
    for number, objective in enumerate(recipe.objective):
        if not isinstance(objective.get("name"), str):
            yield f"objective {number} has no name"
        if not isinstance(objective.get("weight", 1), int | float):
            yield f"objective {number}: weight must be a number"
    if (training.batch_size > 0) == (training.batch_tokens > 0):
        yield "training needs batch_size or batch_tokens, one of them"
    if training.batch_tokens and not training.length_window:
        yield "training.batch_tokens needs training.length_window, such as 1000"
    if 0 < training.length_window < training.batch_size:
        yield f"training.length_window of {training.length_window} rows is less than one step's {training.batch_size}; raise it"
    if recipe.eval.patience and not recipe.eval.every:
        yield "eval.patience needs eval.every, the steps between validations"
    yield from _ranges(recipe)


def _ranges(recipe: Recipe) -> typing.Iterator[str]:
    training = recipe.training
    for table_name in ("training", "eval", "save", "log"):
        table = {"training": training, "eval": recipe.eval, "save": recipe.save, "log": recipe.log}[table_name]
        for field in msgspec.structs.fields(type(table)):
            value = getattr(table, field.name)
            if isinstance(value, int | float) and not 0 <= value < float("inf") and field.name != "seed":
                yield f"{table_name}.{field.name} is {value}, which means nothing"
    for name in ("max_steps", "gradient_accumulation_steps", "average_last"):
        if getattr(training, name) < 1:
            yield f"training.{name} must be 1 or more"
    if training.seed < 0:
        yield "training.seed must be 0 or more"
    if not (training.adam_beta1 < 1 and training.adam_beta2 < 1 and training.average_decay < 1):
        yield "adam_beta1, adam_beta2 and average_decay must be below 1"
    if training.warmup_steps > training.max_steps:
        yield f"training.warmup_steps is more than the {training.max_steps} of max_steps"
    if training.schedule == "wsd" and not training.decay_steps:
        yield "the schedule wsd needs training.decay_steps"
    if training.batch_size and training.batch_size < training.gradient_accumulation_steps:
        yield "training.batch_size has fewer rows than gradient_accumulation_steps has parts"
    if training.average == "last" and recipe.save.keep < training.average_last:
        yield f"average = last of {training.average_last} checkpoints needs save.keep of as many"
    if not 0 < recipe.data.validation < 1:
        yield "data.validation must be above 0 and below 1"
    if min(recipe.save.every, recipe.save.keep, recipe.log.every) < 1:
        yield "save.every, save.keep and log.every must be 1 or more"
    if training.parallel == "fsdp" and training.optimizer != "adamw":
        yield f"fsdp trains with adamw; {training.optimizer} needs whole matrices, so set training.parallel = ddp"
    if training.parallel == "fsdp" and training.average == "last":
        yield "fsdp has no average = last; take ema"


def expand(patterns: Sequence[str], what: str) -> list[Path]:
    """The files that `patterns` name, each pattern's sorted; UserError where one names none."""
    found: list[Path] = []
    for pattern in patterns:
        paths = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern))
        if not paths:
            raise UserError(f"{what}: there is no file {pattern}")
        found += map(Path, paths)
    return found


def config_of(recipe: Recipe) -> dict[str, Any]:
    """What decides the curve: a run continues only where all of this is as it was. What is saved, logged and looked at on
    the way may change, and so may the place of the data, whose tokens are compared instead."""
    plain: dict[str, Any] = msgspec.to_builtins(recipe)
    del plain["save"], plain["log"], plain["data"]
    plain["eval"] = {"every": recipe.eval.every, "patience": recipe.eval.patience} if recipe.eval.patience else {}
    for name in ("gradient_accumulation_steps", "parallel", "gradient_checkpointing", "compile"):
        del plain["training"][name]
    return plain


def decides(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `config_of` that a run may not change: what is done with a bad step may be decided when one comes."""
    training = {key: value for key, value in config["training"].items() if key not in ("on_nan", "explode_factor")}
    return {**config, "training": training}
