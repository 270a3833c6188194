"""Texts of files for tokenizers, streamed: lines of plain text, a column of JSONL, CSV, TSV or Parquet, gzip and zstd.

Lines of plain text keep their line break, so that a tokenizer learns line breaks too; blank lines are kept with the line
before them.
"""

import gzip
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from lydite.data.files import check_file, read_rows
from lydite.errors import DataError

_BLOCK_LINES = 64
"""Lines of plain text that are one text for the trainer."""
_ROWS = (".csv", ".tsv", ".parquet")
_JSON_LINES = (".jsonl", ".ndjson")


def read_texts(files: Sequence[Path], column: str = "text") -> Iterator[str]:
    """All texts of the files in their order; plain text in blocks of lines. Raises DataError with file and line."""
    for path in files:
        yield from _blocks(path) if is_plain(path) else read_column(path, column)


def read_units(path: Path, column: str = "text") -> Iterator[str]:
    """The texts of a file for comparison: lines of plain text without their break, or rows; blank ones are passed over."""
    for text in (line for _, line in _lines(path)) if is_plain(path) else read_column(path, column):
        text = text.rstrip("\r\n") if is_plain(path) else text
        if text.strip():
            yield text


def is_plain(path: Path) -> bool:
    """Whether the file is plain text, by its ending."""
    return _ending(path) not in (*_ROWS, *_JSON_LINES)


def read_column(path: Path, column: str) -> Iterator[str]:
    """One column of a file of rows. A row in which it is missing or no text is a mistake."""
    for number, row in _json_rows(path) if _ending(path) in _JSON_LINES else read_rows(path):
        text = row.get(column)
        if not isinstance(text, str):
            what = (
                f"column {column!r} holds {type(text).__name__}, not text" if column in row else f"no column {column!r}"
            )
            names = ", ".join(map(str, list(row)[:8]))
            raise DataError(f"{path}, row {number}: {what}; name the column of the text by --column (here: {names})")
        yield text


def _blocks(path: Path) -> Iterator[str]:
    block: list[str] = []
    for _, line in _lines(path):
        block.append(line)
        if len(block) == _BLOCK_LINES:
            yield "".join(block)
            block = []
    if block:
        yield "".join(block)


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    decoder = msgspec.json.Decoder(dict[str, object])
    for number, line in _lines(path):
        if line.strip():
            try:
                yield number, decoder.decode(line)
            except msgspec.DecodeError as error:
                raise DataError(f"{path}, line {number}: not a JSON object: {error}") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with _open(path) as file:
            for number, raw in enumerate(file, 1):
                raw = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
                try:
                    yield number, raw.decode("utf-8").replace("\r\n", "\n")
                except UnicodeDecodeError as error:
                    place = f"{path}, line {number}, byte {error.start + 1}"
                    raise DataError(
                        f"{place}: 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8"
                    ) from error
    except (OSError, EOFError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


@contextmanager
def _open(path: Path) -> Iterator[Iterable[bytes]]:
    check_file(path)
    if path.suffix == ".gz":
        with gzip.open(path, "rb") as file:
            yield file
    elif path.suffix == ".zst":
        try:
            import zstandard
        except ImportError as error:
            raise DataError(f"{path}: zstd files need zstandard; pip install zstandard") from error
        try:
            with zstandard.open(path, "rb") as file:
                yield file
        except zstandard.ZstdError as error:
            raise DataError(f"{path} is not readable zstd: {error}") from error
    else:
        with open(path, "rb") as file:
            yield file


def _ending(path: Path) -> str:
    """The ending that says what is inside, a compression left out."""
    name = path.with_suffix("") if path.suffix in (".gz", ".zst") else path
    return name.suffix.lower()
