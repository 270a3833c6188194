"""Code that a task of lm-evaluation-harness would run, found before anything of it is loaded.

Their loader imports what a YAML file names with `!function`, so the question must be asked of the text: files are read
as a tree of nodes (PyYAML's safe loader, nothing is constructed), with their includes, for the task itself and for all
members of a group or tag. Beside `!function`, a task runs code through a metric script of the `evaluate` library, a
data set script, a prompt of another library, or pickled data.

Their templates are rendered without a sandbox; `sandbox_templates` puts one around them.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    waiting: list[str | Path] = list(names)
    seen: set[str | Path] = set()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        if isinstance(one, str):
            entry = index.get(one)
            if entry is not None and entry.yaml_path is not None:
                waiting.append(Path(entry.yaml_path).resolve())
            elif entry is not None:
                waiting += sorted(entry.tags)
            elif one.endswith(".yaml") and Path(one).is_file():
                waiting.append(Path(one).resolve())
            continue
        root = _tree(one)
        try:
            found.update(dict.fromkeys(f"{what} in {one}" for what in _in_node(root)))
            # All that stands below such a key anywhere: a key may come twice, or through an alias or a merge.
            waiting += [(one.parent / include).resolve() for include in _below(root, ("include",))]
            waiting += _below(root, ("task", "group"))
        except RecursionError as error:
            raise TaskError(f"{one} holds itself through an alias") from error
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
    """Read as they read it: bytes, and libyaml where it is there."""
    try:
        node = yaml.compose(path.read_bytes(), Loader=yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)
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
    asked = text is None or text.lower() not in ("false", "no", "off", "null", "~", "", "0")
    if (key in ("hf_evaluate", "trust_remote_code") and asked) or key == "use_prompt":
        yield f"{key}: {text}"
    if key == "dataset_path" and text in _PICKLES:
        yield f"pickled data ({key}: {text})"
    if key == "metric" and text is not None and value.tag != "!function":
        from lm_eval.api import metrics  # noqa: F401  # fills the registry
        from lm_eval.api.registry import metric_registry

        if text not in metric_registry:
            yield f"the metric script {text!r}"


def _below(node: yaml.Node, keys: Sequence[str], inside: bool = False) -> list[str]:
    """Every text below one of `keys`, wherever it stands."""
    if isinstance(node, yaml.ScalarNode):
        return [node.value] if inside else []
    if isinstance(node, yaml.SequenceNode):
        return [text for child in node.value for text in _below(child, keys, inside)]
    return [text for key, value in node.value for text in _below(value, keys, inside or key.value in keys)]


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
