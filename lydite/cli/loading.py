"""From the settings of a command to Tasks that are ready to be evaluated, ours and lm-evaluation-harness's alike."""

from pathlib import Path

import msgspec

from lydite.cli.options import COMMAND, Settings
from lydite.errors import UserError
from lydite.lm_eval import PREFIX
from lydite.types import Group, Run, Task


def ready_tasks(settings: Settings, *, allow_code: bool = False) -> tuple[list[Task], list[Group]]:
    """The tasks with their shots and chat messages, and the groups. `allow_code`: what lm_eval: tasks bring along may
    run; Python task files are code by their name. Raises TaskError and DataError."""
    from lydite.adapt.prompt import bare, prompted
    from lydite.tasks import load_tasks

    own = [name for name in settings.tasks if not name.startswith(PREFIX)]
    tasks, groups = load_tasks(own, data_dir=Path(settings.data_dir) if settings.data_dir else None)
    if settings.prompt:
        if settings.shots or settings.chat:
            raise UserError("--set prompt=input leaves no room for shots or a chat template; leave them out")
        if len(own) < len(settings.tasks):
            raise UserError(
                f"--set prompt=input is not for {PREFIX} tasks, which bring their own prompts; leave it out"
            )
        tasks = [bare(task) for task in tasks]
    ready = [
        prompted(task, shots=settings.shots, seed=settings.seed, shots_by=settings.shots_by, chat=settings.chat)
        for task in tasks
    ]
    theirs = [name for name in settings.tasks if name.startswith(PREFIX)]
    if theirs:
        more_tasks, more_groups = _lm_eval_tasks(theirs, settings, allow_code)
        ready, groups = ready + more_tasks, groups + more_groups
    return ready, groups


def task_of(run: Run, *, allow_code: bool = False) -> Task:
    """The task of a run as it is defined now."""
    from lydite.tasks import load_tasks

    if not run.task.name.startswith(PREFIX):
        return load_tasks([run.environment.get("task_file", run.task.name)])[0][0]
    command = run.environment.get(COMMAND)
    settings = msgspec.json.decode(command, type=Settings) if command else Settings(tasks=())
    # A task that was named by its file has no other name; all of the command's are loaded, and the one is picked.
    names = [name for name in settings.tasks if name.startswith(PREFIX)] or [run.task.name]
    return next(task for task in _lm_eval_tasks(names, settings, allow_code)[0] if task.name == run.task.name)


def _lm_eval_tasks(names: list[str], settings: Settings, allow_code: bool) -> tuple[list[Task], list[Group]]:
    from lydite.lm_eval.tasks import Options, load_lm_eval_tasks

    options = Options(
        include_path=Path(settings.include_path) if settings.include_path else None,
        shots=settings.shots,
        seed=settings.seed,
        chat=settings.chat,
        allow_code=allow_code,
    )
    return load_lm_eval_tasks(names, options)
