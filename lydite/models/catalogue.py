"""The catalogue: short names of models, each with where its weights come from, their licence and their checksum."""

import tomllib
from functools import cache
from importlib import resources

import msgspec

from lydite.errors import ModelError


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model of the catalogue; what the fields mean stands at the top of catalogue.toml."""

    description: str
    languages: tuple[str, ...]
    parameters: int
    max_tokens: int
    licence: str
    licence_url: str | None = None
    hub: str
    wheel: str | None = None
    sha256: str | None = None
    download_bytes: int | None = None
    stored_bytes: int | None = None


@cache
def catalogue() -> dict[str, Entry]:
    """All entries by short name, in the order of the file."""
    text = resources.files("lydite.models").joinpath("catalogue.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Entry])


def catalogue_entry(name: str) -> Entry:
    """The entry of that name; raises ModelError with the names that come closest."""
    entries = catalogue()
    if name not in entries:
        raise ModelError(f"no model {name!r} in the catalogue{did_you_mean(name)}; `lydite models` lists it")
    return entries[name]


def did_you_mean(name: str, more: tuple[str, ...] = ()) -> str:
    """ " (did you mean ...?)" with the closest known names, or nothing."""
    from difflib import get_close_matches

    known = [*catalogue(), *more]
    plain = {known_name.lower(): known_name for known_name in known}
    close = get_close_matches(name.rsplit("/", 1)[-1].lower(), plain, n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(plain[match] for match in close)}?)" if close else ""
