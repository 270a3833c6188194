"""GLUE's files, and those of the corpora that it was made from, as rows."""

from collections.abc import Iterator
from pathlib import Path

from lydite.data.files import Row, read_jsonl, read_lines
from lydite.errors import DataError

REPOSITORY = "nyu-mll/glue"
"""On the hub."""


def read_glue(path: Path) -> Iterator[Row]:
    """Rows of a file of GLUE or of the corpus that it was made from.

    Tab-separated, nothing quoted. Lines with fewer fields than the header are left out, as on the hub: QQP has a few.
    """
    if path.suffix == ".jsonl":
        yield from read_jsonl(path)
    elif path.name == "in_domain_dev.tsv":
        yield from _cola(path)
        yield from _cola(path.with_name("out_of_domain_dev.tsv"))
    elif path.parent.name == "CoLA" and path.name != "test.tsv":
        yield from _cola(path)
    elif path.name == "msr_paraphrase_train.txt":
        yield from _mrpc(path, dev=False)
    else:
        yield from _table(path)


def _table(path: Path) -> Iterator[Row]:
    header: list[str] = []
    for number, line in read_lines(path):
        fields = line.split("\t")
        if not header:
            header = fields
        elif len(fields) >= len(header):
            yield number, dict(zip(header, fields, strict=False))


def _cola(path: Path) -> Iterator[Row]:
    """CoLA's labelled files have no header: source, label, the authors' mark, sentence."""
    for number, line in read_lines(path):
        fields = line.split("\t")
        if len(fields) != 4:
            raise DataError(f"{path}, line {number}: {len(fields)} fields, and CoLA has 4")
        yield number, {"sentence": fields[3], "label": fields[1], "source": fields[0]}


def _mrpc(path: Path, dev: bool) -> Iterator[Row]:
    """Microsoft's training file, from which GLUE took its development set by a list of ids."""
    ids = path.with_name("dev_ids.tsv")
    held_out = {tuple(line.split("\t")) for _, line in read_lines(ids)} if ids.is_file() else set()
    for number, row in _table(path):
        if ((row["#1 ID"], row["#2 ID"]) in held_out) == dev:
            yield number, row


def read_mrpc(path: Path) -> Iterator[Row]:
    """GLUE's development set is in dev.tsv, or in Microsoft's training file by the list of ids."""
    if path.name == "dev_ids.tsv":
        return _mrpc(path.with_name("msr_paraphrase_train.txt"), dev=True)
    return read_glue(path)
