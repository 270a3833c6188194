"""Sources to chunks of raw documents, streamed: text, JSONL and Parquet files, plain or compressed, tokens, and the hub.

Contract: a chunk holds about a mebibyte, and where chunks end depends on the input alone. Lines of JSONL leave here as
bytes: the worker that gets the chunk decodes and parses them, so that the one reader stays ahead of many workers. Every
item carries the number of its line (of its row, in Parquet), for messages.
"""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lydite.data.files import COMPRESSED, ending_of, no_column, raw_lines, read_parquet
from lydite.data.prepare.recipe import HUB, Source
from lydite.data.prepare.tokens import ENDING, open_tokens, read_tokens
from lydite.errors import DataError, UserError

CHUNK = 1 << 20
"""Bytes after which a chunk ends."""
TEXT, LINES, TABLE, TOKENS = (".txt", ".text", ".md"), (".jsonl", ".ndjson", ".json"), (".parquet",), (ENDING,)
Kind = Literal["text", "lines", "table", "tokens"]


class Chunk(NamedTuple):
    """Raw documents of one file."""

    source: int
    file: str
    kind: Literal["text", "json", "tokens"]
    items: list[tuple[int, bytes | str]]
    """(number of the line, the raw document)."""
    size: int
    """Bytes read from the source."""
    width: int = 0
    """Of tokens: bytes of an id."""


class File(NamedTuple):
    """A file of a source."""

    source: int
    path: Path
    kind: Kind
    size: int
    """Estimated bytes of its content."""


def find_files(sources: Sequence[Source]) -> list[File]:
    """The files of all sources but the hub's, sorted within each source. Raises DataError where one has none."""
    found: list[File] = []
    for number, source in enumerate(sources):
        if not source.path.startswith(HUB):
            found += [_file(number, path) for path in _paths(source.path)]
    seen: dict[Path, int] = {}
    for file in found:
        real = file.path.resolve()
        if real in seen:
            raise DataError(
                f"{file.path} is named twice, in source {sources[seen[real]].name} and {sources[file.source].name}"
            )
        seen[real] = file.source
    return found


def _paths(name: str) -> list[Path]:
    path = Path(name)
    if path.is_file():
        return [path]
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p, path) and _kind(p) is not None)
        if not inside:
            raise DataError(f"{path.resolve()} holds no file that ends in {_endings()}")
        return inside
    matches = sorted(Path(p) for p in glob.glob(name, recursive=True) if Path(p).is_file())
    if not matches:
        what = "matches no file" if glob.has_magic(name) else "does not exist"
        raise DataError(f"{path.absolute()} {what}; check the path")
    return matches


def _hidden(path: Path, top: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(top).parts)


def _endings() -> str:
    return ", ".join(TEXT + LINES + TABLE + TOKENS) + f", or one of these and {' or '.join(COMPRESSED)}"


def _kind(path: Path) -> Kind | None:
    ending = ending_of(path)
    if ending in TABLE + TOKENS:
        return None if path.suffix.lower() in COMPRESSED else "table" if ending in TABLE else "tokens"
    return "text" if ending in TEXT else "lines" if ending in LINES else None


def _file(source: int, path: Path) -> File:
    kind = _kind(path)
    if kind is None:
        raise DataError(f"{path}: unknown kind of file; its name must end in {_endings()}")
    size = path.stat().st_size
    return File(
        source, path, kind, size * 4 if path.suffix.lower() in COMPRESSED else size * 2 if kind == "table" else size
    )


def read_chunks(sources: Sequence[Source], files: Sequence[File], max_characters: int) -> Iterator[Chunk]:
    """All chunks of all sources, in order."""
    for number, source in enumerate(sources):
        if source.path.startswith(HUB):
            yield from _gather(number, source.path, "text", _hub_rows(source))
        for file in files:
            if file.source == number:
                yield from _read_file(source, file, max_characters)


def _read_file(source: Source, file: File, max_characters: int) -> Iterator[Chunk]:
    if file.kind == "table":
        yield from _gather(file.source, str(file.path), "text", _table_rows(file.path, source.column))
        return
    if file.kind == "tokens":
        tokens = open_tokens(file.path)
        yield from _gather(file.source, str(file.path), "tokens", read_tokens(tokens), tokens.width)
        return
    rows: Iterator[tuple[int, bytes | str]]
    if file.kind == "lines" or source.documents == "line":
        rows = ((number, line) for number, line in raw_lines(file.path) if not line.isspace())
    elif source.documents == "paragraph":
        rows = _paragraphs(file.path)
    else:
        rows = _pieces(file.path, max_characters)
    yield from _gather(file.source, str(file.path), "json" if file.kind == "lines" else "text", rows)


def _gather(
    source: int,
    file: str,
    kind: Literal["text", "json", "tokens"],
    rows: Iterator[tuple[int, bytes]] | Iterator[tuple[int, str]] | Iterator[tuple[int, bytes | str]],
    width: int = 0,
) -> Iterator[Chunk]:
    items: list[tuple[int, bytes | str]] = []
    size = 0
    for row in rows:
        items.append(row)
        size += len(row[1])
        if size >= CHUNK:
            yield Chunk(source, file, kind, items, size, width)
            items, size = [], 0
    if items:
        yield Chunk(source, file, kind, items, size, width)


def _paragraphs(path: Path) -> Iterator[tuple[int, bytes]]:
    """What stands between blank lines."""
    start, lines = 1, list[bytes]()
    for number, line in raw_lines(path):
        if not line.isspace():
            start = start if lines else number
            lines.append(line)
        elif lines:
            yield start, b"".join(lines)
            lines = []
    if lines:
        yield start, b"".join(lines)


def _pieces(path: Path, max_characters: int) -> Iterator[tuple[int, bytes]]:
    """A whole file, or pieces of it that end at a line (best a blank one) and are no longer than a document may be."""
    start, lines, size = 1, list[bytes](), 0
    for number, line in raw_lines(path):
        length = _characters(line)
        if lines and size + length > max_characters:
            blank = next((i for i in range(len(lines) - 1, len(lines) // 2, -1) if lines[i].isspace()), len(lines) - 1)
            yield start, b"".join(lines[: blank + 1])
            lines = lines[blank + 1 :]
            start, size = number - len(lines), sum(map(_characters, lines))
        lines.append(line)
        size += length
    if lines:
        yield start, b"".join(lines)


def _characters(line: bytes) -> int:
    return len(line) if line.isascii() else len(line.decode("utf-8", "ignore"))


def _table_rows(path: Path, column: str) -> Iterator[tuple[int, str]]:
    for number, row in read_parquet(path, column):
        yield number, _text(str(path), number, column, row[column])


def _text(file: str, number: int, column: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{file}, row {number}: column {column!r} holds a {type(value).__name__}, and a text is needed")
    return value


def _hub_rows(source: Source) -> Iterator[tuple[int, str]]:
    """Rows of a data set of the hub, streamed: nothing is stored. `hf:NAME:CONFIG@SPLIT`."""
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise DataError(f"{source.path} needs datasets; pip install 'lydite[data]'") from error
    name, _, split = source.path.removeprefix(HUB).partition("@")
    name, _, config = name.partition(":")
    if not name:
        raise UserError(f"{source.path!r} names no data set; write hf:OWNER/NAME")
    try:
        rows = load_dataset(name, config or None, split=split or "train", streaming=True)
        for number, row in enumerate(rows, 1):
            if source.column not in row:
                raise no_column(source.path, source.column, list(row))
            yield number, _text(source.path, number, source.column, row[source.column])
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"cannot read {source.path}: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from error
