"""Comparison: counts by hand on tiny texts, the page, bad texts."""

import gzip
import json

import pytest
from transformers import PreTrainedTokenizerFast

from lydite.data.tokenizers import TokenizerSettings, train_tokenizer
from lydite.data.tokenizers.compare import Comparison, compare_tokenizer
from lydite.data.tokenizers.texts import read_texts, read_units
from lydite.errors import DataError
from lydite.report.tokenizers import render


def characters(text):
    found = train_tokenizer(lambda: [text], TokenizerSettings(kind="characters", vocab_size=200))
    return PreTrainedTokenizerFast(tokenizer_object=found.tokenizer, unk_token="<unk>")


def test_counts_by_hand():
    tokenizer = characters("abc 天")
    row = compare_tokenizer("c", tokenizer, {"en": lambda: ["ab abc", "z"], "zh": lambda: ["天 天空"]})
    en, zh = row.counts
    # "ab abc" is 6 tokens, "z" one that is unknown; three words in all.
    assert (en.num_texts, en.num_tokens, en.num_units, en.unit) == (2, 7, 3, "word")
    assert (en.num_unknown, en.num_exact, en.num_bytes, en.num_characters) == (1, 1, 7, 7)
    assert en.broken == ("z", "<unk>")
    assert en.fertility == pytest.approx(7 / 3)
    # Three characters and a space: 4 tokens, 10 bytes, 3 characters that count; 空 is unknown.
    assert (zh.num_tokens, zh.num_bytes, zh.num_units, zh.unit, zh.num_unknown) == (4, 10, 3, "character", 1)
    assert zh.bytes_per_token == 2.5
    assert row.vocab_size == 7
    assert row.num_used == 6  # a b c space 天 <unk>


def test_texts_are_counted_once_whatever_the_batches():
    tokenizer = characters("ab \n")
    [count] = compare_tokenizer("c", tokenizer, {"t": lambda: ["ab"] * 600}).counts
    assert (count.num_texts, count.num_tokens, count.round_trip) == (600, 1200, 1.0)


def test_an_empty_text_is_a_mistake():
    with pytest.raises(DataError, match=r"empty\.txt holds no text"):
        compare_tokenizer("c", characters("a"), {"empty.txt": list})


def test_the_page_escapes_and_shows_everything():
    tokenizer = characters("abc <>&script/")
    row = compare_tokenizer("<b>evil</b>", tokenizer, {"<i>": lambda: ["a<script>\u202e", "abc"], "zh": lambda: ["天"]})
    page = render(Comparison(rows=(row, row)))
    assert "<b>evil" not in page
    assert "<script" not in page.replace("<svg", "")
    assert "⟦RLO⟧" in page
    assert "\u202e" not in page
    assert page.count("<figure") == 3
    assert "Tokens a character" in page


def test_files_of_all_kinds(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\n\r\ntwo".encode())
    (tmp_path / "b.jsonl").write_text('{"text": "three", "n": 1}\n\n{"text": "四"}\n', encoding="utf-8")
    with gzip.open(tmp_path / "c.txt.gz", "wt") as file:
        file.write("five\n")
    with gzip.open(tmp_path / "d.jsonl.gz", "wt") as file:
        file.write(json.dumps({"body": "six"}) + "\n")
    assert list(read_units(tmp_path / "a.txt")) == ["one", "two"]
    assert list(read_texts([tmp_path / "a.txt", tmp_path / "b.jsonl", tmp_path / "c.txt.gz"])) == [
        "one\n\ntwo",
        "three",
        "四",
        "five\n",
    ]
    assert list(read_units(tmp_path / "d.jsonl.gz", "body")) == ["six"]
    with pytest.raises(DataError, match="name the column of the text by --column"):
        list(read_units(tmp_path / "d.jsonl.gz"))


def test_bad_files(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"ok\n\xff\n")
    with pytest.raises(DataError, match="line 2, byte 1: 0xff is not UTF-8"):
        list(read_units(tmp_path / "a.txt"))
    (tmp_path / "b.txt.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="cannot read"):
        list(read_units(tmp_path / "b.txt.gz"))
    (tmp_path / "c.jsonl").write_text("[1]\n")
    with pytest.raises(DataError, match="line 1: a JSON object is needed"):
        list(read_units(tmp_path / "c.jsonl"))
