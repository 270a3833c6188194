"""Paths in recipes and lists of sources."""

import os

from lydite.errors import UserError


def with_variable(path: str) -> str:
    """A path that may begin with a variable of the environment, such as $LYDITE_DATA/corpora; UserError where it is not
    set."""
    if not path.startswith("$"):
        return path
    name, slash, rest = path[1:].partition("/")
    if name not in os.environ:
        raise UserError(f"{path}: the variable {name} is not set; set it to a folder, or write the path out")
    return f"{os.environ[name]}{slash}{rest}"
