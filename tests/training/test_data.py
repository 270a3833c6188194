"""What recipes read: parallel files."""

import gzip

import pytest

from lydite.errors import DataError
from lydite.training.data import read_data
from lydite.training.recipe import DataTable
from tests.tiny import tiny_tokenizer


def table(folder, source, target):
    tiny_tokenizer().save_pretrained(folder / "tokenizer")
    (folder / "a.en").write_bytes(source.encode())
    with gzip.open(folder / "b.de.gz", "wb") as file:
        file.write(target.encode())
    return DataTable(source=str(folder / "a.en"), target=str(folder / "b.de.gz"), tokenizer=str(folder / "tokenizer"))


def test_parallel_files_are_lines_plain_or_gzip(tmp_path):
    # A line separator of Unicode is no end of a line, and pairs with an empty side are left out.
    data = read_data(table(tmp_path, "one\u2028more\ntwo\n\nfour\n", "eins\nzwei\ndrei\n\n"))
    texts = [data.tokenizer.decode(ids) for ids in data.train]
    assert texts == ["one\u2028more", "two"]
    assert [data.tokenizer.decode(ids) for ids in data.targets] == ["eins", "zwei"]


def test_what_does_not_align_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.en has 2 lines and .*b\.de\.gz 1"):
        read_data(table(tmp_path, "one\ntwo\n", "eins\n"))
    with pytest.raises(DataError, match="no line with text in both"):
        read_data(table(tmp_path, "one\n\n", "\nzwei\n"))
    (tmp_path / "b.de.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match=r"cannot read .*b\.de\.gz: Not a gzipped file"):
        read_data(
            DataTable(
                source=str(tmp_path / "a.en"), target=str(tmp_path / "b.de.gz"), tokenizer=str(tmp_path / "tokenizer")
            )
        )
