"""Lines and rows of files, streamed, with the place of every mistake: text, JSONL, CSV and TSV, plain or in gzip or zstd,
and Parquet.

A row is a dict from column to value, and comes with the number of the line on which it ends (rows of Parquet count
from 1). Text is UTF-8; a byte-order mark is dropped. CSV is the quoted kind (RFC 4180). TSV is the plain kind: a tab
always separates and quotes mean nothing, as in the files of GLUE.
"""

import csv
import gzip
import io
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from lydite.errors import DataError

Row = tuple[int, dict[str, Any]]

COMPRESSED = (".gz", ".zst")
LONGEST_LINE = 1 << 28
"""Bytes; a longer one is an error, since a line is held in memory."""
_BOM = b"\xef\xbb\xbf"
_HALF_PAIR = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_JSON = msgspec.json.Decoder()


def read_rows(path: Path) -> Iterator[Row]:
    """Yields (line, row) of a file by its ending. Raises DataError with file and line."""
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        ".jsonl": read_jsonl,
        ".ndjson": read_jsonl,
        ".csv": read_csv,
        ".tsv": read_tsv,
        ".parquet": read_parquet,
    }
    reader = readers.get(ending_of(path))
    if reader is None or (reader is read_parquet and path.suffix.lower() in COMPRESSED):
        raise DataError(f"{path}: unknown kind of file; rename it to end in {', '.join(readers)}")
    return _not_empty(path, reader(check_file(path)))


def check_file(path: Path) -> Path:
    """The path, if it is a file; else a DataError that shows what was looked for, resolved."""
    if path.is_dir():
        raise DataError(f"{path.resolve()} is a folder, and a file is needed")
    if not path.is_file():
        raise DataError(f"no file {path.resolve()}; check the path")
    return path


def ending_of(path: Path) -> str:
    """The ending that says what is inside, in small letters; that of a compression is left out."""
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return name.suffix.lower()


def read_lines(path: Path, *, breaks: bool = False) -> Iterator[tuple[int, str]]:
    """Yields (number from 1, line), decoded, without its line break or with it as "\\n". Raises DataError at an undecodable
    byte."""
    for number, raw in raw_lines(path):
        line = _decode(path, number, raw)
        yield number, line.replace("\r\n", "\n") if breaks else line.rstrip("\r\n")


def raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields (number from 1, line as it stands there), decompressed. Raises DataError for damage and for endless lines."""
    number = 0
    with _reading(path) as stream:
        while line := stream.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise DataError(f"{path}, line {number} is longer than {LONGEST_LINE >> 20} MiB; break it into lines")
            yield number, line.removeprefix(_BOM) if number == 1 else line


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    """What the file holds, decompressed; DataError, naming it, for what goes wrong in opening or reading it."""
    try:
        with _open(check_file(path)) as file, _plain_stream(path, file) as stream:
            yield stream
    except (OSError, EOFError, zlib.error) as error:
        raise _damage(path, error) from error
    except Exception as error:
        if type(error).__name__ != "ZstdError":  # of a package that may not be there
            raise
        raise _damage(path, error) from error


def _damage(path: Path, error: Exception) -> DataError:
    return DataError(f"cannot read {path}: {error}; it is damaged or not what its ending says")


def _open(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")  # closed by the caller
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _plain_stream(path: Path, file: BinaryIO) -> BinaryIO:
    """What the file holds, decompressed."""
    ending = path.suffix.lower()
    if ending == ".gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if ending == ".zst":
        try:
            import zstandard
        except ImportError as error:
            raise DataError(f"{path}: .zst files need zstandard; pip install 'lydite[data]'") from error
        return cast(
            BinaryIO, io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True))
        )
    return file


def read_text(path: Path) -> str:
    """The whole of a text file, decompressed. Line breaks become "\\n"; a missing one at the end is not added."""
    with _reading(path) as stream:
        raw = stream.read().removeprefix(_BOM)
    return _decode(path, 1, raw).replace("\r\n", "\n")


def read_jsonl(path: Path) -> Iterator[Row]:
    """One JSON object a line; blank lines are passed over."""
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = _JSON.decode(line)
        except RecursionError as error:
            raise DataError(f"{path}, line {number}: the JSON is nested too deeply") from error
        except msgspec.DecodeError as error:
            raise DataError(f"{path}, line {number}: {_why_not_json(line, error)}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: a JSON object is needed, and this is a {type(row).__name__}")
        yield number, row


def read_whole(path: Path, layout: str, rows: Callable[[Any], Iterable[dict[str, Any]]]) -> Iterator[Row]:
    """Yields (number from 1, row) of a file that is one JSON value, from which `rows` makes them. Raises DataError where it
    is not JSON, or `rows` misses what the files of `layout` have."""
    text = read_text(path)
    try:
        value = _JSON.decode(text)
    except RecursionError as error:
        raise DataError(f"{path}: the JSON is nested too deeply") from error
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: {_why_not_json(text, error)}") from error
    try:
        found = list(rows(value))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path} is not in the layout of {layout}: {what}") from error
    yield from enumerate(found, 1)


def _why_not_json(line: str, error: msgspec.DecodeError) -> str:
    """Half of a surrogate pair is what a cut emoji leaves; msgspec calls it malformed or, before a quote, truncated. NaN
    is what other writers leave."""
    half = _HALF_PAIR.search(line)
    if half and ("surrogate" in str(error) or ("truncated" in str(error) and line.rstrip().endswith("}"))):
        return f"{half.group()} is half of a surrogate pair and no text; replace it, for instance by \\ufffd"
    hint = (
        "; NaN and Infinity are not part of JSON, write null" if re.search(r"[:\[,]\s*-?(NaN|Infinity)", line) else ""
    )
    return f"not JSON: {error}{hint}"


def read_csv(path: Path) -> Iterator[Row]:
    """Columns from the header line, fields quoted with double quotes where needed."""
    header: list[str] | None = None
    for number, fields in read_records(path):
        if header is None:
            header = _check_header(path, fields)
        else:
            yield number, _zip(path, number, header, fields)


def read_tsv(path: Path) -> Iterator[Row]:
    """Columns from the header line; tabs separate, and nothing is quoted."""
    header: list[str] | None = None
    for number, line in read_lines(path):
        fields = line.split("\t")
        if header is None:
            header = _check_header(path, fields)
        elif line:
            yield number, _zip(path, number, header, fields)


def read_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Records of a CSV file that has no header line."""
    csv.field_size_limit(2**31 - 1)
    # The csv module wants the line breaks, since a quoted field may hold some.
    # `strict`: without it a quote that is never closed swallows the rest of the file in silence.
    reader = csv.reader((line + "\n" for _, line in read_lines(path)), strict=True)
    try:
        for fields in reader:
            if fields:
                yield reader.line_num, fields
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV: {error}") from error


def _check_header(path: Path, header: list[str]) -> list[str]:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path}, line 1: two columns are called {twice[0]!r}; give each its own name")
    return header


def _zip(path: Path, number: int, header: list[str], fields: list[str]) -> dict[str, Any]:
    if len(fields) != len(header):
        raise DataError(f"{path}, line {number}: {len(fields)} fields, but the header names {len(header)} columns")
    return dict(zip(header, fields, strict=True))


def read_parquet(path: Path, column: str | None = None) -> Iterator[Row]:
    """Rows of a Parquet file, with all columns or one; needs pyarrow. Dates become text, NaN becomes None (a missing value)."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DataError(f"{path}: Parquet files need pyarrow; pip install 'lydite[data]'") from error
    try:
        with ParquetFile(path) as file:
            names = file.schema_arrow.names
            if column is not None and column not in names:
                raise no_column(str(path), column, names)
            number = 0
            for batch in file.iter_batches(batch_size=1024, columns=None if column is None else [column]):
                for row in batch.to_pylist():
                    number += 1
                    yield number, _plain(row)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}") from error


def no_column(place: str, column: str, names: Iterable[object]) -> DataError:
    """What to say where a column is missing."""
    return DataError(f"{place} has no column {column!r}; it has {', '.join(map(str, names))}: use --set column=NAME")


def _plain(value: Any) -> Any:
    """The same value made of JSON types only."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else msgspec.to_builtins(value)


def _decode(path: Path, first_line: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line = first_line + before.count(b"\n")
        place = error.start - (before.rfind(b"\n") + 1)
        raise DataError(
            f"{path}, line {line}, byte {place + 1}: 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from error


def _not_empty(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise DataError(f"{path} has no rows; name a file that has some")
