"""Code that a task of lm-evaluation-harness would run, found before anything of it is loaded.

Their loader imports what a YAML file names with `!function`, so the question must be asked of the text: files are read
as a tree of nodes (PyYAML's safe loader, nothing is constructed), with their includes, for the task itself and for all
members of a group or tag. Beside `!function`, a task runs code through a metric script of the `evaluate` library, a
data set script, a prompt of another library, or pickled data.

Their templates are rendered without a sandbox; `sandbox_templates` puts one around them.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2.sandbox import SandboxedEnvironment

from lydite.errors import TaskError

_PICKLES = ("pandas", "pickle")


def find_code(names: Iterable[str], index: Mapping[str, Any]) -> list[str]:
    """What the tasks `names` (or YAML files) and their members would run: "!function utils.f in FILE" ...

    `index`: their TaskManager.task_index, read without functions. Raises TaskError for files that are not YAML.
    """
    found: dict[str, None] = {}
    files: dict[Path, None] = {}
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        entry = index.get(name)
        if entry is None:
            if Path(name).suffix == ".yaml" and Path(name).is_file():
                files[Path(name).resolve()] = None
            continue
        waiting += sorted(entry.tags) if entry.yaml_path is None else []
        if entry.yaml_path is not None:
            files[Path(entry.yaml_path).resolve()] = None
        waiting += members(entry.cfg or {})
    pending = list(files)
    while pending:
        path = pending.pop()
        root = _tree(path)
        found.update(dict.fromkeys(f"{what} in {path}" for what in _in_node(root)))
        for include in _includes(root):
            other = (path.parent / include).resolve()
            if other not in files:
                files[other] = None
                pending.append(other)
        waiting_here = [member for member in members(_plain(root)) if member not in seen]
        if waiting_here:  # a group in a file of its own
            found.update(dict.fromkeys(find_code(waiting_here, index)))
    return list(found)


def members(config: Mapping[str, Any]) -> list[str]:
    """Names in the list of a group, those of groups inside it too."""
    listed = config.get("task")
    found: list[str] = []
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict):
            found += [str(item[key]) for key in ("group", "task") if isinstance(item.get(key), str)]
            found += members(item)
    return found


def _tree(path: Path) -> yaml.Node:
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TaskError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if node is None:
        raise TaskError(f"{path} is empty")
    return node


def _in_node(node: yaml.Node) -> Iterator[str]:
    """What the nodes below `node` would run."""
    if node.tag == "!function" or node.tag.startswith("tag:yaml.org,2002:python/"):
        yield f"!{node.tag.rpartition(':')[2].lstrip('!')} {node.value}"
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _in_node(child)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _in_pair(key.value, value)
            yield from _in_node(value)


def _in_pair(key: object, value: yaml.Node) -> Iterator[str]:
    text = value.value if isinstance(value, yaml.ScalarNode) else None
    asked = text is not None and text.lower() in ("true", "yes", "on")
    if (key in ("hf_evaluate", "trust_remote_code") and asked) or key == "use_prompt":
        yield f"{key}: {text}"
    if key == "dataset_path" and text in _PICKLES:
        yield f"pickled data ({key}: {text})"
    if key == "metric" and text is not None and value.tag != "!function":
        from lm_eval.api import metrics  # noqa: F401  # fills the registry
        from lm_eval.api.registry import metric_registry

        if text not in metric_registry:
            yield f"the metric script {text!r}"


def _includes(node: yaml.Node) -> list[str]:
    for key, value in node.value if isinstance(node, yaml.MappingNode) else []:
        if key.value == "include":
            return [item.value for item in value.value] if isinstance(value, yaml.SequenceNode) else [value.value]
    return []


def _plain(node: yaml.Node) -> dict[str, Any]:
    """The `task` list of a group file as plain values; functions as their names."""

    def value(of: yaml.Node) -> Any:
        if isinstance(of, yaml.MappingNode):
            return {key.value: value(child) for key, child in of.value}
        if isinstance(of, yaml.SequenceNode):
            return [value(child) for child in of.value]
        return of.value

    found = value(node)
    return found if isinstance(found, dict) else {}


class _Templates(SandboxedEnvironment):
    """A sandbox that compiles each template once; theirs compiles it for every document."""

    @functools.lru_cache(maxsize=1024)  # noqa: B019  # one environment a process, and templates are few
    def _compiled(self, source: str) -> jinja2.Template:
        return super().from_string(source)

    def from_string(self, source: Any, *args: Any, **options: Any) -> jinja2.Template:
        """As in jinja2."""
        return super().from_string(source, *args, **options) if args or options else self._compiled(source)


def sandbox_templates() -> None:
    """Their templates may read rows from here on, and nothing else; what renders does not change."""
    import lm_eval.utils as theirs

    if not isinstance(theirs.env, SandboxedEnvironment):
        env = _Templates(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
        env.filters.update(theirs.env.filters)
        theirs.env = env
