"""Texts of files for tokenizers, streamed: lines of plain text, or a column of JSONL, CSV, TSV or Parquet (data/files.py).

Lines of plain text keep their line break, so that a tokenizer learns line breaks too; blank lines are kept with the line
before them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from lydite.data.files import ending_of, read_lines, read_rows
from lydite.errors import DataError

_BLOCK_LINES = 64
"""Lines of plain text that are one text for the trainer."""
_ROWS = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")


def read_texts(files: Sequence[Path], column: str = "text") -> Iterator[str]:
    """All texts of the files in their order; plain text in blocks of lines. Raises DataError with file and line."""
    for path in files:
        yield from _blocks(path) if is_plain(path) else read_column(path, column)


def read_units(path: Path, column: str = "text") -> Iterator[str]:
    """The texts of a file for comparison: lines of plain text without their break, or rows; blank ones are passed over."""
    for text in (line for _, line in read_lines(path)) if is_plain(path) else read_column(path, column):
        if text.strip():
            yield text


def is_plain(path: Path) -> bool:
    """Whether the file is plain text, by its ending."""
    return ending_of(path) not in _ROWS


def read_column(path: Path, column: str) -> Iterator[str]:
    """One column of a file of rows. A row in which it is missing or no text is a mistake."""
    for number, row in read_rows(path):
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
    for _, line in read_lines(path, breaks=True):
        block.append(line)
        if len(block) == _BLOCK_LINES:
            yield "".join(block)
            block = []
    if block:
        yield "".join(block)
