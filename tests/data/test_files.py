"""Rows of files, and the place of every mistake."""

import csv
import gzip
import json
import math

import pytest

from lydite.data.files import read_records, read_rows, read_text
from lydite.errors import DataError


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_jsonl_with_mark_blank_lines_and_no_last_line_break(tmp_path):
    path = write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"a": 1}\r\n\n{"a": "\xe4\xbb\x8a"}')
    assert list(read_rows(path)) == [(1, {"a": 1}), (3, {"a": "今"})]


def test_csv_is_what_the_csv_module_wrote(tmp_path):
    rows = [{"q": 'say "hi", twice', "a": "line\nbreak"}, {"q": "plain", "a": ""}]
    with open(tmp_path / "a.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["q", "a"])
        writer.writeheader()
        writer.writerows(rows)
    found = list(read_rows(tmp_path / "a.csv"))
    assert [row for _, row in found] == rows
    assert [line for line, _ in found] == [3, 4]


def test_tsv_knows_no_quotes(tmp_path):
    path = write(tmp_path / "a.tsv", 'q\ta\n"open\tx\n5" disk\ty\n')
    assert [row for _, row in read_rows(path)] == [{"q": '"open', "a": "x"}, {"q": '5" disk', "a": "y"}]


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"q": ["a", "b"], "n": [1.5, math.nan], "choices": [["x", "y"], []]})
    parquet.write_table(table, tmp_path / "a.parquet")
    rows = [row for _, row in read_rows(tmp_path / "a.parquet")]
    assert rows == [{"q": "a", "n": 1.5, "choices": ["x", "y"]}, {"q": "b", "n": None, "choices": []}]
    json.dumps(rows, allow_nan=False)


def test_a_file_that_is_no_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        list(read_rows(write(tmp_path / "a.parquet", "text")))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": "caf\xe9"}\n', "a.jsonl, line 2, byte 11: 0xe9 is not UTF-8"),
        ("a.csv", b"a,b\n1,2\n3,\xff\n", "a.csv, line 3, byte 3: 0xff is not UTF-8"),
        ("a.jsonl", '{"a": 1}\n{"a": }\n', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", '{"a": NaN}\n', "a.jsonl, line 1: not JSON"),
        ("a.jsonl", "[1, 2]\n", "a.jsonl, line 1: a JSON object is needed, and this is a list"),
        ("a.jsonl", "\n\n", "a.jsonl has no rows"),
        ("a.csv", "a,b\n", "a.csv has no rows"),
        ("a.csv", "", "a.csv has no rows"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", "a.csv, line 3: 3 fields, but the header names 2 columns"),
        ("a.csv", 'a,b\n1,"open\n2,3\n', "not CSV"),
        ("a.csv", "a,a\n1,2\n", "two columns are called 'a'"),
        ("a.tsv", "a\tb\n1\n", "a.tsv, line 2: 1 fields"),
        ("a.xlsx", "x", "unknown kind of file; rename it to end in .jsonl"),
    ],
)
def test_mistakes_are_one_line_with_their_place(tmp_path, name, content, said):
    with pytest.raises(DataError) as caught:
        list(read_rows(write(tmp_path / name, content)))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_before_a_mistake_arrive(tmp_path):
    rows = read_rows(write(tmp_path / "a.jsonl", '{"a": 1}\nbroken\n'))
    assert next(rows) == (1, {"a": 1})
    with pytest.raises(DataError):
        next(rows)


def test_missing_files_and_folders_show_the_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    with pytest.raises(DataError, match=str(tmp_path / "no.jsonl")):
        list(read_rows(Path("no.jsonl")))
    (tmp_path / "dir.jsonl").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        list(read_rows(tmp_path / "dir.jsonl"))


def test_compressed_files_are_closed_when_they_are_read(tmp_path):
    path = write(tmp_path / "a.csv.gz", gzip.compress(b"a,b\n1,2\n"))
    opened = []
    real = open
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.open", lambda *given, **more: opened.append(real(*given, **more)) or opened[-1])
        assert list(read_rows(path)) == [(2, {"a": "1", "b": "2"})]
        with pytest.raises(DataError, match="damaged or not what its ending says"):
            list(read_rows(write(tmp_path / "b.csv.gz", "a,b\n")))
    assert opened
    assert all(file.closed for file in opened)


def test_long_fields_are_no_problem(tmp_path):
    path = write(tmp_path / "a.csv", "a,b\n" + "x" * 300_000 + ",1\n")
    assert len(next(read_rows(path))[1]["a"]) == 300_000


def test_text_and_records(tmp_path):
    assert read_text(write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\ntwo")) == "one\ntwo"
    assert list(read_records(write(tmp_path / "b.csv", 'q,"a, b"\n\nx,y\n'))) == [(1, ["q", "a, b"]), (3, ["x", "y"])]
    assert read_text(write(tmp_path / "a.txt.gz", gzip.compress(b"\xef\xbb\xbfone\r\ntwo"))) == "one\ntwo"
    with pytest.raises(DataError, match=r"b\.gz: Not a gzipped file"):
        read_text(write(tmp_path / "b.gz", b"one"))
    with pytest.raises(DataError, match="line 2, byte 1"):
        read_text(write(tmp_path / "c.txt", b"ok\n\xff"))


@pytest.mark.parametrize("half", ["\\ud83d", "\\uDE00", "\\ud83d\\ud83d\\ude00"])
def test_half_a_surrogate_pair_is_told_apart_from_a_torn_line(tmp_path, half):
    path = write(tmp_path / "a.jsonl", f'{{"a": "\\ud83d\\ude00"}}\n{{"a": "x {half} y"}}\n')
    rows = read_rows(path)
    assert next(rows) == (1, {"a": "😀"})
    with pytest.raises(DataError, match=r"line 2: \\u(d83d|DE00) is half of a surrogate pair"):
        next(rows)
    with pytest.raises(DataError, match="line 1: not JSON"):
        list(read_rows(write(tmp_path / "b.jsonl", '{"a": "x')))


def test_what_other_writers_call_json(tmp_path):
    with pytest.raises(DataError, match=r"line 1: not JSON: .*; NaN and Infinity are not part of JSON, write null"):
        list(read_rows(write(tmp_path / "a.jsonl", '{"a": [1, -Infinity]}')))
    with pytest.raises(DataError, match="line 1: the JSON is nested too deeply"):
        list(read_rows(write(tmp_path / "b.jsonl", '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")))
