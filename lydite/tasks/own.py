"""Own data."""

from pathlib import Path

from lydite.types import Task


def load_task_file(path: Path) -> Task:
    raise NotImplementedError


def load_python_file(path: Path) -> Task:
    raise NotImplementedError
