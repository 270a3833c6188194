"""lm-evaluation-harness's tasks as ours: their prompts, filters and metrics; our engine, intervals, run folder, page.

Their loader reads the YAML and the data and renders every prompt, in the order of the data and with their seed, so the
prompts are those of a whole run of theirs, also under our --limit. A document is a Sample (its id is their doc_id), its
requests become ours, and its answers go through their filters and `process_results` again.

Contract: nothing that a YAML file names as code is imported before it was allowed (lydite.lm_eval.code). With --chat a
context is messages, and the model applies its own template. Groups weigh leaf tasks as theirs do.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, cast

from lydite.errors import TaskError, UserError
from lydite.lm_eval import PREFIX
from lydite.types import Group, Message, Task

FEWSHOT_SEED = 1234
"""Theirs; ours, 0, stands for it."""


@dataclass(frozen=True)
class Options:
    """What shapes their prompts."""

    include_path: Path | None = None
    shots: int | None = None
    """None: what the task says. A task that says 0 keeps it, as there."""
    seed: int = 0
    chat: bool = False
    allow_code: bool = False


def load_lm_eval_tasks(names: Iterable[str], options: Options | None = None) -> tuple[list[Task], list[Group]]:
    """The Tasks and Groups that names like `lm_eval:hellaswag` (or a path to a YAML file) stand for; tags and patterns
    with * are their members. Raises TaskError with one line for whatever is wrong with them."""
    options = options or Options()
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UserError(
            f"lm_eval: tasks need lm-evaluation-harness ({error}); pip install 'lydite[lm-eval]'"
        ) from error
    from lydite.lm_eval.code import find_code, sandbox_templates
    from lydite.lm_eval.documents import ERRORS

    wanted = [name.removeprefix(PREFIX) for name in names]
    manager = _manager(TaskManager, wanted, options.include_path)
    matched = [found for name in wanted for found in _matches(manager, name)]
    code = find_code(matched, manager.task_index)
    if code and not options.allow_code:
        more = f" and {len(code) - 1} more" if len(code) > 1 else ""
        raise TaskError(
            f"{', '.join(wanted)} runs code: {code[0]}{more}; read it, then allow it with --trust-remote-code"
        )
    sandbox_templates()
    with _quiet():
        try:
            loaded = manager.load(list(dict.fromkeys(matched)))
        except ERRORS as error:
            raise TaskError(f"lm-evaluation-harness cannot load {', '.join(wanted)}: {_line(error)}") from error
        tasks = [_task(name, theirs, options) for name, theirs in loaded["tasks"].items()]
    groups = [_group(group) for group in loaded.get("groups", {}).values() if group.has_aggregation]
    return tasks, groups


def _manager(kind: Any, wanted: Sequence[str], include_path: Path | None) -> Any:
    """Their index of tasks; the built-in ones, which take seconds, only where they are needed."""
    if include_path is not None and not include_path.is_dir():
        raise TaskError(f"no folder {include_path.resolve()}; give --include-path the folder with the YAML files")
    paths = None if include_path is None else str(include_path)
    manager = kind(include_path=paths, include_defaults=False)
    here = all(_matches_or_none(manager, name) for name in wanted)
    return manager if here and not _unknown_members(manager) else kind(include_path=paths, include_defaults=True)


def _unknown_members(manager: Any) -> bool:
    """Whether a group of the folder names tasks that are not in it."""
    from lydite.lm_eval.code import members

    index = manager.task_index
    return any(name not in index for entry in index.values() for name in members(entry.cfg or {}))


def _matches_or_none(manager: Any, name: str) -> list[str]:
    if Path(name).suffix == ".yaml":
        return [str(Path(name).resolve())] if Path(name).is_file() else []
    return sorted(manager.match_tasks([name]))


def _matches(manager: Any, name: str) -> list[str]:
    found = _matches_or_none(manager, name)
    if not found:
        from lydite.tasks import unknown

        raise TaskError(unknown(name, manager.all_tasks, "lm_eval task"))
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of theirs, and no remarks on keys that a YAML file leaves to their defaults."""
    import datasets
    from lm_eval.api import task as theirs

    log, bar, bars = logging.getLogger("lm_eval"), theirs.tqdm, datasets.is_progress_bar_enabled()
    level = log.level
    log.setLevel(logging.ERROR)
    theirs.tqdm = lambda documents, **_: documents
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        log.setLevel(level)
        theirs.tqdm = bar
        if bars:
            datasets.enable_progress_bars()


def _line(error: BaseException) -> str:
    return " ".join((str(error).strip().splitlines() or [""])[0].split())[:300] or type(error).__name__


def _group(group: Any) -> Group:
    """Leaf tasks, weighed as in their first aggregate: by size, or alike."""
    members = tuple(PREFIX + task.task_name for task in group.get_all_tasks())
    by_size = group.aggregate_metric_list[0].weight_by_size
    return Group(
        name=PREFIX + group.name, members=tuple(dict.fromkeys(members)), weighting="samples" if by_size else "tasks"
    )


# ------------------------------------------------------------------------------------------ one task


def _task(name: str, theirs: Any, options: Options) -> Task:
    from lydite.lm_eval.documents import ERRORS, Documents
    from lydite.lm_eval.scoring import reading

    _refuse(name, theirs)
    shots = _set_shots(theirs, options.shots)
    seed = options.seed or FEWSHOT_SEED
    theirs.set_fewshot_seed(seed)
    try:
        theirs.build_all_requests(
            apply_chat_template=options.chat,
            fewshot_as_multiturn=options.chat,
            chat_template=_as_messages if options.chat else None,
        )
    except ERRORS as error:
        raise TaskError(f"{name}: lm-evaluation-harness cannot make its prompts: {_line(error)}") from error
    filters = [one.name for one in theirs._filters]
    better = theirs.higher_is_better()
    readings = {
        (metric, key): reading(
            metric if filters == ["none"] else f"{metric},{key}", metric, function, bool(better.get(metric, True))
        )
        for key in filters
        for metric, function in theirs.aggregation().items()
    }
    if not readings:
        raise TaskError(f"{name} names no metrics")
    documents = Documents(theirs, readings)
    settings: dict[str, Any] = {
        "shots": shots,
        "lm_eval": metadata.version("lm_eval"),
    }
    settings |= {"task_version": str(theirs.VERSION)} if theirs.VERSION not in (None, "Yaml") else {}
    settings |= {"fewshot_seed": seed} if shots else {}
    settings |= {"chat": True} if options.chat else {}
    return Task(
        name=PREFIX + name,
        version=_version(theirs.VERSION),
        samples=lambda split: documents.samples if split == "test" else [],
        prompt=documents.context,
        views={"generate" if documents.generates else "score": documents.requests},
        score=documents.score,
        metrics=tuple(one.metric for one in readings.values()),
        chance=documents.chance,
        shots=shots,
        source=f"lm-evaluation-harness {name}, data {theirs.DATASET_PATH or 'of its own'}",
        fingerprint=documents.fingerprint(),
        settings=settings,
    )


def _refuse(name: str, theirs: Any) -> None:
    """What this path cannot do."""
    if theirs.get_config("unsafe_code"):
        raise TaskError(f"{name} runs what the model writes; use lydite-lm-eval with --confirm_run_unsafe_code")
    if theirs.get_config("doc_to_image") or theirs.get_config("doc_to_audio"):
        raise TaskError(f"{name} needs images or sound; the models here read text")


def _set_shots(theirs: Any, shots: int | None) -> int:
    said = theirs.get_config("num_fewshot")
    if shots is not None and said != 0:
        theirs.set_config("num_fewshot", shots)
    elif said is None:
        theirs.set_config("num_fewshot", 0)
    return int(theirs.get_config("num_fewshot"))


def _version(version: Any) -> int:
    """Whole part of a version number; the whole of it stands in the settings."""
    try:
        return int(float(version))
    except (TypeError, ValueError):
        return 1


def _as_messages(history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> tuple[Message, ...]:
    """Stands in for a chat template: the messages themselves, which the model will render."""
    if not add_generation_prompt:
        raise ValueError("it begins the answer itself (gen_prefix), which messages cannot say; leave --chat out")
    return tuple(Message(role=_role(turn["role"]), content=turn["content"]) for turn in history)


def _role(role: str) -> Literal["system", "user", "assistant"]:
    assert role in ("system", "user", "assistant"), f"unknown role {role!r}"
    return cast(Literal["system", "user", "assistant"], role)
