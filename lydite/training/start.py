"""From a recipe to a run: its folder, data, objectives and network, and the loop over them.

    RUN/recipe.json      what decides the curve, as it was when the run began
    RUN/checkpoints/     see checkpoints.py
    RUN/log.jsonl        see log.py
    RUN/latest/          the model as it was at the last validation that judged it
    RUN/model/           the finished model: plain transformers loads it, `lydite evaluate RUN/model` judges it

Contract: one process uses a folder at a time; a folder with another recipe or other data is refused, saying what differs.
"""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from lydite.errors import RunError, UserError
from lydite.runs import differences, lock, write_json
from lydite.training import speed
from lydite.training.counted import check_counted, count
from lydite.training.data import Data, read_data
from lydite.training.distributed import World, blocks, check_shares, num_strangers
from lydite.training.log import Line
from lydite.training.loop import Job, Loop, OnEval
from lydite.training.network import build_network
from lydite.training.objectives import OBJECTIVES, Mixture, Objective, make_objective
from lydite.training.objectives.causal import labels_around
from lydite.training.recipe import DataTable, ModelTable, Recipe, config_of, decides, is_counted, kind_of
from lydite.training.step import before_first

SCHEMA = 1
BEGUN = "recipe.json"


class _Begun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """recipe.json."""

    schema: int = SCHEMA
    config: dict[str, Any]
    data: str
    """Hash of the tokens."""


def pretrain(
    recipe: Recipe,
    folder: Path,
    *,
    device: str = "cpu",
    on_eval: OnEval | None = None,
    on_line: Callable[[Line], None] = lambda line: None,
    say: Callable[[str], None] = lambda line: None,
    measure: bool = False,
) -> Path:
    """Trains `recipe` in `folder`, or goes on where it stopped; returns the folder of the finished model.

    `on_eval` judges a checkpoint (see loop.OnEval); `on_line` hears every line of the log, `say` what else a person should
    know. `measure`: the matrix peak, for the fraction of it in the log. Raises UserError, and Interrupted after SIGTERM or
    Ctrl-C.
    """
    if is_counted(recipe.model):
        check_counted(recipe)
        with lock(folder):
            data = read_data(recipe.data)
            begun = _Begun(config=config_of(recipe), data=data.hash)
            _compare(folder, begun)
            write_json(folder / BEGUN, begun)
            return count(recipe, data, folder, on_eval=on_eval, on_line=on_line, say=say)
    if strangers := num_strangers():
        say(
            f"srun started {strangers} processes, and each trains by itself; for one run over all of them start torchrun in it"
        )
    world = World(device)
    try:
        with lock(folder) if world.leads else contextlib.nullcontext():
            world.barrier()  # nobody reads what the leader may not write
            data = read_data(recipe.data, recipe.model.init)
            begun = _Begun(config=config_of(recipe), data=data.hash)
            if world.leads:
                _compare(folder, begun)
            job = _job(recipe, folder, world, data)
            if world.leads:  # only now: a recipe with a mistake must not take the folder
                write_json(folder / BEGUN, begun)
            job.on_eval, job.on_line, job.say = on_eval, on_line, say
            if world.leads and (doubt := untrained_positions(recipe, job.network)):
                say(doubt)
            if measure:
                job.work = speed.work_of(job.network)
                own = speed.peak_of(recipe.training.dtype, world.device)
                job.peak = sum(message["peak"] for message in world.gather({"peak": own}))
            return Loop(job).run()
    finally:
        world.close()


def _compare(folder: Path, fresh: _Begun) -> None:
    """RunError where the folder holds a run of another recipe or on other data, saying what differs."""
    path = folder / BEGUN
    if not path.exists():
        return
    try:
        begun = msgspec.json.decode(path.read_bytes(), type=_Begun)
    except (OSError, msgspec.DecodeError) as error:
        raise RunError(f"{path} cannot be read ({error}); choose another --out") from error
    other = "; choose another --out, or delete it"
    was, now = decides(begun.config), decides(msgspec.to_builtins(fresh.config))
    if was != now:
        changes = differences(was, now)
        raise RunError(f"{folder} holds a run of another recipe ({changes}){other}")
    if begun.data != fresh.data:
        raise RunError(f"{folder} holds a run on other data (hash {begun.data}, now {fresh.data}){other}")


def _job(recipe: Recipe, folder: Path, world: World, data: Data) -> Job:
    table = recipe.training
    check_shares(table.batch_size, table.gradient_accumulation_steps, world)
    train = objective_of(recipe, data, "train")
    assert train is not None
    if train.rows is not None and (table.batch_size != train.rows or table.length_window):
        raise UserError(
            f"the objective carries {train.rows} streams: set training.batch_size to that, without a window"
        )
    validation = objective_of(recipe, data, "validation")
    if validation is None and (recipe.eval.every or recipe.eval.patience):
        raise UserError("eval.every needs validation data; add it to [data], or set eval.every = 0")
    names = [kind_of(one) for one in recipe.objective]
    network = build_network(attended(recipe, world.device.type), names, data.tokenizer, table.seed)
    if table.gradient_checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})
    if table.compile:
        for block in blocks(network):
            block.compile()
    size = bytes_per_label(recipe, data)
    return Job(recipe, folder, world, network, data.tokenizer, train, validation, bytes_per_label=size)


def bytes_per_label(recipe: Recipe, data: Data) -> float:
    """UTF-8 bytes of the validation text for each of its labels; 0 where the loss is no likelihood of that text."""
    [first, *more] = recipe.objective
    if data.validation is None or more or first["name"] != "causal" or "corpus" in first:
        return 0.0
    labels = data.validation_tokens + len(data.validation) * labels_around(data.tokenizer, settings_of(first))
    return data.validation_bytes / labels if labels > 0 else 0.0


def untrained_positions(recipe: Recipe, network: Any) -> str:
    """In a line, that a fresh network takes longer rows than it is trained on, so that longer texts will be read at positions of
    which it knows nothing; empty where it does not."""
    config = network.config.get_text_config()
    most = getattr(config, "max_position_embeddings", None)
    far = getattr(config, "position", "") in ("relative", "alibi", "none")  # made to be read beyond
    if recipe.model.init or far or not isinstance(most, int):
        return ""
    names = ("context", "max_source_length", "max_target_length")
    settings = [settings_of(table) for table in recipe.objective]
    rows = max(getattr(one, name, 0) for one in settings for name in names)
    before = before_first(network)
    if most <= rows + before:
        return ""
    key = type(config).attribute_map.get("max_position_embeddings", "max_position_embeddings")
    return (
        f"the network takes {most - before:,} positions and rows have {rows:,}: longer texts would be judged at positions that are "
        f"never trained; set model.config.{key} = {rows + before}, or evaluate with --set max_tokens={rows}"
    )


def settings_of(table: Mapping[str, Any]) -> Any:
    """The settings of an objective, which `make_objective` has accepted, with their defaults."""
    return msgspec.convert(_own_settings(table), OBJECTIVES[str(table["name"])].settings)


def _own_settings(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in ("name", "weight", "corpus")}


def attended(recipe: Recipe, device: str) -> ModelTable:
    """[model] with the attention that is fast: on CPUs the gradient of PyTorch's fused attention takes ten times as long in
    bfloat16 as in float32, and more than a plain one."""
    if recipe.model.attention or recipe.training.dtype == "float32" or device != "cpu":
        return recipe.model
    return msgspec.structs.replace(recipe.model, attention="eager")


def objective_of(recipe: Recipe, data: Data, split: Literal["train", "validation"]) -> Objective | None:
    """The recipe's objective over a split, or the mixture of them; None where there is no such split."""
    members, weights = {}, {}
    for number, table in enumerate(recipe.objective):
        name = str(table["name"])
        own = _own_data(table, data)
        documents, targets = (own.train, own.targets) if split == "train" else (own.validation, own.validation_targets)
        if documents is None:
            return None
        settings = _own_settings(table)
        made = make_objective(name, documents, data.tokenizer, settings, recipe.training.seed, targets=targets)
        label = name if name not in members else f"{name}_{number}"
        members[label], weights[label] = made, float(table.get("weight", 1))
    return Mixture(members, weights) if len(members) > 1 else next(iter(members.values()))


def _own_data(table: Mapping[str, Any], data: Data) -> Data:
    """An objective may name a corpus of its own, made with the same tokenizer."""
    if "corpus" not in table:
        return data
    own = read_data(DataTable(corpus=str(table["corpus"])))
    if own.tokenizer.get_vocab() != data.tokenizer.get_vocab():
        raise UserError(f"{table['corpus']} was prepared with another tokenizer than the recipe's data")
    return own
