"""What `lydite prepare` is asked to do: sources and settings, from the command line and a TOML file.

    tokenizer = "my-tokenizer"        # settings stand at the top
    languages = ["en", "zh"]
    temperature = 3.0

    [[source]]                        # one table a source
    path = "books/*.txt"
    name = "books"

Contract: unknown names are errors; paths of a file count from its folder, or begin with a variable ($LYDITE_DATA/books).
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from lydite.data.paths import with_variable
from lydite.errors import DataError, UserError

HUB = "hf:"
RULES = ("gopher_quality", "gopher_repetition", "c4")


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where documents come from."""

    path: str
    """A file, a folder, a pattern such as `books/*.txt`, or `hf:NAME[:CONFIG][@SPLIT]`."""
    name: str = ""
    """In reports and mixtures; default: the last part of the path."""
    column: str = "text"
    """Of JSONL and Parquet files and of the hub: the column that holds the text."""
    documents: Literal["file", "line", "paragraph"] = "file"
    """What a document of a text file is: the file, a line, or what stands between blank lines."""
    weight: float | None = None
    """Share of this source in the mixture; all sources have one or none has."""
    language: str = ""
    """Stated here, it is not guessed."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything but the sources that decides what the corpus is."""

    normalize: Literal["NFC", "NFKC", "none"] = "NFC"
    """Unicode normal form."""
    max_characters: int = 100_000
    """Longer documents are cut at a paragraph, a line or a space."""
    min_characters: int = 1
    """Shorter documents are left out."""
    rules: tuple[str, ...] = ()
    """Of gopher_quality, gopher_repetition and c4."""
    identify_languages: bool = False
    """Guess the language of each document."""
    languages: tuple[str, ...] = ()
    """Keep these languages only (ISO 639-1)."""
    exact_duplicates: bool = True
    """Keep the first of equal documents (white space aside)."""
    near_duplicates: bool = True
    """Keep the first of documents that are nearly alike (MinHash)."""
    near_threshold: float = 0.8
    """Estimated Jaccard similarity from which documents are nearly alike."""
    near_ngram: int = 5
    """Words, or Chinese and Japanese characters, of a shingle."""
    overlap_ngram: int = 13
    """Words or characters that a document may not share with an evaluation item."""
    overlap_min: int = 8
    """Items shorter than `overlap_ngram` are looked for whole if they have so many words or characters."""
    mix_by: Literal["source", "language"] = "source"
    """What the parts of the mixture are."""
    temperature: float | None = None
    """Share of a part is proportional to its bytes to the power 1/temperature; 1 or none: as it comes."""
    max_repeats: float = 4.0
    """No document is used more often; where the mixture would need it, larger parts are used in part."""
    validation: float = 0.005
    """Share of the documents, by hash, that becomes the split `validation`."""
    seed: int = 0
    """Of the order of the documents and of the split."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.rules) - set(RULES))
        wrong = {
            f"rules: unknown {', '.join(unknown)}; there are {', '.join(RULES)}": bool(unknown),
            "near_threshold must be above 0 and at most 1": not 0 < self.near_threshold <= 1,
            "validation must be at least 0 and below 1": not 0 <= self.validation < 1,
            "temperature must be 1 or more": self.temperature is not None and not 1 <= self.temperature < 1e9,
            "max_repeats must be 1 or more": not 1 <= self.max_repeats < 1e9,
            "max_characters must be 100 or more": self.max_characters < 100,
            "near_ngram and overlap_min must be 1 or more": min(self.near_ngram, self.overlap_min) < 1,
            "overlap_ngram must be overlap_min or more": self.overlap_ngram < self.overlap_min,
            "min_characters must be between 1 and max_characters": not 1 <= self.min_characters <= self.max_characters,
        }
        for text, is_wrong in wrong.items():
            if is_wrong:
                raise ValueError(text)

    @property
    def needs_language(self) -> bool:
        return self.identify_languages or bool(self.languages) or self.mix_by == "language"


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """A whole request."""

    sources: tuple[Source, ...]
    settings: Settings
    tokenizer: str = ""
    """A folder, `bytes` or `characters`."""


def read_recipe(path: Path | None, sources: Sequence[str], pairs: Sequence[str], tokenizer: str = "") -> Recipe:
    """The recipe of a command: a TOML file, sources of the command line beside its own, `key=value` over it.

    `key=value` may also be `column` and `documents`, which then hold for the sources of the command line.
    """
    table: dict[str, Any] = _table(path) if path else {}
    listed = table.pop("source", [])
    if not isinstance(listed, list):
        raise DataError(f"{path}: write [[source]], in double brackets, before each source")
    given = dict(_pair(pair) for pair in pairs)
    common = {key: given.pop(key) for key in ("column", "documents", "language") if key in given}
    if common and not sources:
        raise UserError(
            f"--set {next(iter(common))} is for sources of the command line; set it in [[source]] of {path}"
        )
    found = [_source(one, f"{path}, [[source]]") for one in listed]
    found = [_beside(one, path) for one in found] if path else found
    found += [_source({"path": source, **common}, "--set") for source in sources]
    if not found:
        raise UserError("name at least one SOURCE: a file, a folder, a pattern or hf:NAME; or [[source]] in --config")
    named = tokenizer or str(_tokenizer(table.pop("tokenizer", ""), path))
    table.pop("tokenizer", None)
    settings = _settings(table | given, path, given)
    return Recipe(sources=_named(found, settings), settings=settings, tokenizer=named)


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not TOML: {error}") from error


def _tokenizer(value: Any, path: Path | None) -> str:
    if not isinstance(value, str):
        raise DataError(f"{path}: tokenizer must be a text: a folder, bytes or characters")
    if path is None or value in ("", "bytes", "characters"):
        return value
    return _from(path, value)


def _beside(source: Source, path: Path) -> Source:
    if source.path.startswith(HUB):
        return source
    return msgspec.structs.replace(source, path=_from(path, source.path))


def _from(path: Path, value: str) -> str:
    """A path of the file `path`: counted from its folder, or from where the command runs where a variable begins it."""
    return with_variable(value) if value.startswith("$") else str(path.parent / value)


def _pair(pair: str) -> tuple[str, Any]:
    key, equals, text = pair.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {pair!r} is not KEY=VALUE")
    try:
        value = json.loads(text, parse_constant=str)
    except json.JSONDecodeError:
        value = text.strip()
    if key.strip() in ("rules", "languages") and isinstance(value, str):
        value = [word.strip() for word in value.split(",") if word.strip()]
    return key.strip(), value


def _source(table: Any, place: str) -> Source:
    try:
        return msgspec.convert(table, Source)
    except msgspec.ValidationError as error:
        raise UserError(f"{place}: {error}") from error


def _settings(table: Mapping[str, Any], path: Path | None, given: Mapping[str, Any]) -> Settings:
    place = "--set" if given or path is None else str(path)
    unknown = sorted(set(table) - set(Settings.__struct_fields__))
    if unknown:
        where = "--set" if unknown[0] in given else str(path)
        raise UserError(f"{where}: no setting {unknown[0]!r}; there are {', '.join(Settings.__struct_fields__)}")
    try:
        return msgspec.convert(dict(table), Settings)
    except (msgspec.ValidationError, ValueError) as error:
        raise UserError(f"{place}: {error}") from error


def _named(sources: Sequence[Source], settings: Settings) -> tuple[Source, ...]:
    """Every source with a name of its own; weights checked."""
    named: list[Source] = []
    for source in sources:
        name = source.name or Path(source.path.removeprefix(HUB)).name or source.path
        if any(other.name == name for other in named):
            if source.name:
                raise UserError(f"two sources are called {name!r}; give each its own name")
            name = source.path
        named.append(msgspec.structs.replace(source, name=name))
    weights = [source.weight for source in named if source.weight is not None]
    if weights and len(weights) < len(named):
        raise UserError("some sources have a weight and some have none; give all of them one, or none")
    if weights and (settings.temperature is not None or settings.mix_by == "language"):
        raise UserError("weights of sources exclude temperature and mix_by = language; keep one of them")
    if any(not 0 < weight < 1e12 for weight in weights):
        raise UserError("a weight must be above 0; leave the source out instead")
    return tuple(named)
