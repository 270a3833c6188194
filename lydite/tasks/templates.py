"""Templates of task files: jinja2 in its sandbox, in which an unknown name is an error.

A template that is one expression and nothing else, as "{{choices}}", gives the value itself (a list, a number);
anything else gives text.
"""

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, Undefined, nodes
from jinja2.sandbox import SandboxedEnvironment

from lydite.errors import DataError, TaskError

_ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)


class Template:
    """A compiled template that knows its key in the task file."""

    def __init__(self, key: str, text: str) -> None:
        """Raises TaskError where the text is not a template."""
        self.key = key
        try:
            self._text = _ENVIRONMENT.from_string(text)
            inside = _only_expression(text)
            self._value = None if inside is None else _ENVIRONMENT.compile_expression(inside, undefined_to_none=False)
        except TemplateSyntaxError as error:
            raise TaskError(f"{key} = {text!r} is not a template: {error.message}") from error

    def value(self, row: Mapping[str, Any]) -> Any:
        """The value of the only expression, else the text. Raises DataError without file and line, which the caller
        knows. Columns whose names are no identifiers are reached as row["..."]."""
        names = {"row": row, **row}
        try:
            if self._value is None:
                return self._text.render(names)
            found = self._value(names)
            return str(found) if isinstance(found, Undefined) else found
        except (RecursionError, MemoryError) as error:
            raise DataError(f"{self.key}: the template does not end, or its text is too long") from error
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise DataError(f"{self.key}: {error}; columns: {', '.join(map(str, row))}") from error

    def text(self, row: Mapping[str, Any]) -> str:
        """The value as text; numbers are written out. Raises DataError for lists, tables and missing values."""
        found = self.value(row)
        if isinstance(found, str):
            return found
        if isinstance(found, int | float) and not isinstance(found, bool):
            return str(found)
        raise DataError(f"{self.key} gives {_shown(found)}, and text is needed")


def _only_expression(text: str) -> str | None:
    """What stands between {{ and }} where that is all there is."""
    body = _ENVIRONMENT.parse(text).body
    if len(body) != 1 or not isinstance(body[0], nodes.Output) or len(body[0].nodes) != 1:
        return None
    if isinstance(body[0].nodes[0], nodes.TemplateData) or not text.strip().startswith("{{"):
        return None
    # A sign that touches the braces belongs to them: it asks for white space to be cut.
    return re.sub(r"^\{\{[-+]?|[-+]?\}\}$", "", text.strip())


def _shown(value: Any) -> str:
    return "nothing (the value is missing)" if value is None else f"{value!r:.60}"
