"""What a plan reads: the recipe of a training run, and the machine it is to run on, both TOML.

    [model]                          [data]                      [training]
    family = "gpt2"                  tokens = 2e9                batch = 512            sequences a step
    n_layer = 12                     # or corpus = "corpus"      steps = 20000
    # or config = "config.json"      # or epochs                 sequence_length = 1024
                                                                 dtype = "bfloat16"
                                                                 optimizer = "adamw"

Keys under [model] are those of the family's configuration in transformers. Keys of [training] and [data] that a plan has no use for
(a learning rate, a schedule) are kept and named, so that the recipe of a run serves as it is.
"""

import math
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from lydite.errors import UserError
from lydite.training.recipe import COUNTED
from lydite.types import Record

Dtype = Literal["float32", "bfloat16", "float16"]
Optimizer = Literal["adamw", "muon", "adafactor", "sgd"]
Parallel = Literal["ddp", "fsdp"]
Objective = Literal["causal", "masked", "seq2seq"]
_SAME = {
    "batch_size": "batch",
    "max_steps": "steps",
    "micro_batch_size": "micro_batch",
    "context": "sequence_length",
}
"""Other names that recipes use for the same thing."""
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class Training(Record, frozen=True, kw_only=True):
    """The part of [training] that a plan depends on."""

    batch: int
    """Sequences a step, over all devices and micro-batches."""
    steps: int | None = None
    """None: one step is planned."""
    sequence_length: int
    """Tokens of a sequence; of an encoder and decoder, those of the encoder."""
    target_length: int | None = None
    """Tokens of the decoder's sequence. Default: as long as the encoder's."""
    micro_batch: int | None = None
    """Sequences that one device has in memory at a time. Default: its whole share of the batch."""
    dtype: Dtype = "float32"
    """bfloat16 and float16: weights and optimizer in float32, products under autocast."""
    optimizer: Optimizer = "adamw"
    gradient_checkpointing: bool = False
    parallel: Parallel = "ddp"
    """Over several devices: replicated (ddp) or sharded (fsdp)."""
    objective: Objective | None = None
    """Default: by the architecture."""
    labelled: float | None = None
    """Share of the positions that have a loss. Default: all; 0.15 of a masked objective."""

    def __post_init__(self) -> None:
        counts = (self.batch, self.sequence_length, self.steps, self.target_length, self.micro_batch)
        if any(count is not None and count < 1 for count in counts):
            raise ValueError("batch, steps and lengths must be 1 or more")
        if self.labelled is not None and not 0 < self.labelled <= 1:
            raise ValueError("labelled is a share above 0 and at most 1")


class Recipe(Record, frozen=True, kw_only=True):
    """A recipe as a plan takes it."""

    model: dict[str, Any]
    training: Training
    unique_tokens: int | None = None
    """Tokens of the data, each counted once."""
    unused: tuple[str, ...] = ()
    """Keys that say nothing to a plan."""


class Machine(Record, frozen=True, kw_only=True):
    """What a run has to run on."""

    name: str
    devices: int = 1
    memory: int
    """Bytes of one device."""
    peak: dict[str, float]
    """Floating-point operations a second of one device's matrix products, by dtype."""
    bandwidth: float | None = None
    """Bytes a second that one device sends to the others."""
    utilisation: float | None = None
    """Share of the peak that training reaches, if it is known."""

    def __post_init__(self) -> None:
        numbers = [self.devices, self.memory, *self.peak.values(), self.bandwidth or 1]
        if any(not math.isfinite(number) or number <= 0 for number in numbers):
            raise ValueError("devices, memory, peak and bandwidth must be above 0")
        if self.utilisation is not None and not 0 < self.utilisation <= 1:
            raise ValueError("utilisation is a share above 0 and at most 1")


def read_recipe(path: Path | None, changes: dict[str, Any] | None = None) -> Recipe:
    """A recipe; `changes` are values by dotted key (training.batch) that stand before the file's, or without a file are all
    there is. Raises UserError."""
    raw = read_toml(path) if path is not None else {}
    path = path or Path("the recipe")
    for key, value in (changes or {}).items():
        table, dot, name = key.partition(".")
        if not dot or table not in ("model", "data", "training"):
            raise UserError(f"--set {key} is not model.KEY, data.KEY or training.KEY")
        raw.setdefault(table, {})[name] = value
    for table in ("model", "training"):
        if not isinstance(raw.get(table), dict):
            raise UserError(f"{path} has no table [{table}]; a plan needs the model and the training")
    training = {_SAME.get(key, key): value for key, value in raw["training"].items()}
    known = {key: value for key, value in training.items() if key in Training.__struct_fields__}
    for needed in ("batch", "sequence_length"):
        if needed not in known:
            raise UserError(f"{path}: [training] has no {needed}")
    data = raw.get("data", {})
    unused = [f"training.{key}" for key in training if key not in known]
    unused += [f"data.{key}" for key in data if key not in ("tokens", "corpus", "epochs")]
    unused += [f"[{key}]" for key in raw if key not in ("model", "data", "training")]
    try:
        found = msgspec.convert(known, Training)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: [training]: {error}") from error
    unique = _unique_tokens(path, data)
    if found.steps is None:
        if unique is None:
            raise UserError(f"{path}: name steps under [training], or tokens and epochs under [data]")
        a_step = found.batch * found.sequence_length
        steps = max(1, math.ceil(unique * float(data.get("epochs", 1)) / a_step))
        found = msgspec.structs.replace(found, steps=steps)
    return Recipe(model=dict(raw["model"]), training=found, unique_tokens=unique, unused=tuple(unused))


def read_machine(path: Path) -> Machine:
    """A machine: devices, memory ("80 GiB"), [peak] by dtype, bandwidth. Raises UserError."""
    raw = read_toml(path)
    for key in ("memory", "bandwidth"):
        if isinstance(raw.get(key), str):
            raw[key] = parse_bytes(raw[key])
    try:
        return msgspec.convert({"name": path.stem} | raw, Machine)
    except msgspec.ValidationError as error:
        raise UserError(
            f"{path}: {error}; a machine has devices, memory, peak.DTYPE, bandwidth, utilisation"
        ) from error


def parse_bytes(text: str) -> int:
    """ "80 GiB", "1.5GB/s" to bytes. Raises UserError."""
    match = re.fullmatch(r"\s*([\d.]+)\s*([A-Za-z]*)(?:/s)?\s*", text)
    if match is None or match[2].upper() not in _UNITS or match[1].count(".") > 1 or match[1] == ".":
        raise UserError(f"{text!r} is no size; write it as in 80 GiB or 25 GB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def is_for_training(tables: dict[str, Any]) -> bool:
    """Whether a TOML file is a recipe of `lydite pretrain` (see trained.py): those alone name objectives, or an n-gram
    model, which has none."""
    model = tables.get("model")
    family = model.get("family") if isinstance(model, dict) else None
    return isinstance(tables.get("objective"), list) or family in COUNTED


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises UserError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}") from error


def _unique_tokens(path: Path, data: dict[str, Any]) -> int | None:
    tokens = data.get("tokens")
    if tokens is None and isinstance(data.get("corpus"), str):
        record = path.parent / data["corpus"] / "corpus.json"
        try:
            tokens = msgspec.json.decode(record.read_bytes())["splits"]["train"]["num_tokens"]
        except (OSError, msgspec.DecodeError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: {record.parent} is no corpus with a train split; name data.tokens instead"
            ) from error
    if tokens is None:
        return None
    if not isinstance(tokens, int | float) or tokens < 1:
        raise UserError(f"{path}: [data] tokens is a number above 0, not {tokens!r}")
    return int(tokens)
