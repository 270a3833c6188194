"""What recipes read: text and parallel files, plain or compressed."""

import gzip

import pytest

from lydite.data.corpus import CorpusInfo, SplitInfo
from lydite.errors import DataError, UserError
from lydite.runs import write_json
from lydite.training.data import character_tokenizer, read_data
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


def test_text_is_the_same_plain_and_compressed(tmp_path):
    text = "\ufeffone line\r\nand another, a little longer\n" * 20
    (tmp_path / "a.txt").write_bytes(text.encode())
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(text.encode()))
    zstandard = pytest.importorskip("zstandard")
    (tmp_path / "c.txt.zst").write_bytes(zstandard.ZstdCompressor().compress(text.encode()))
    found = [
        read_data(DataTable(text=[str(tmp_path / name)], tokenizer="characters"))
        for name in ("a.txt", "b.txt.gz", "c.txt.zst")
    ]
    assert found[0].tokenizer.decode(found[0].train[0]).startswith("one line\nand another")
    assert len({data.hash for data in found}) == 1
    assert found[0].validation_bytes > 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"  \n", "a.txt is empty; name a file with text"),
        ("a.txt", b"ok\n\xff", "a.txt, line 2, byte 1: 0xff is not UTF-8"),
        ("a.txt.gz", b"no gzip", "cannot read .*a.txt.gz: Not a gzipped file"),
        ("a.txt.gz", gzip.compress(b"one" * 100, mtime=0)[:-10], "cannot read .*a.txt.gz"),
    ],
)
def test_text_that_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_data(DataTable(text=[str(tmp_path / name)], tokenizer="characters"))


def test_weights_and_data_have_one_vocabulary(tmp_path):
    (tmp_path / "a.txt").write_text("banana bandana\n" * 20)
    for name, letters in (("less", "abn"), ("same", "abdn \n"), ("none", "xyz")):
        character_tokenizer([letters]).save_pretrained(tmp_path / name)
    table = DataTable(text=[str(tmp_path / "a.txt")], tokenizer=str(tmp_path / "same"))
    assert read_data(table, str(tmp_path / "same")).validation_tokens == 30
    with pytest.raises(UserError, match=r"less were trained with another tokenizer .* \(3 tokens have other ids\)"):
        read_data(table, str(tmp_path / "less"))
    (tmp_path / "none" / "tokenizer_config.json").unlink()
    read_data(table, str(tmp_path / "none"))  # weights without a tokenizer: nothing to compare with


def empty_corpus(folder):
    """A corpus whose held-out split has nothing; its tokenizer knows a, b and c."""
    folder.mkdir()
    character_tokenizer(["abc"]).save_pretrained(folder / "tokenizer")
    split = SplitInfo(num_documents=0, num_tokens=0, num_sentences=0, num_bytes=0, num_characters=0, shards=())
    info = CorpusInfo(hash="x", dtype="uint16", vocab_size=6, splits={"train": split, "validation": split})
    write_json(folder / "corpus.json", info)
    return str(folder)


def test_a_held_out_split_without_tokens_is_none(tmp_path):
    assert read_data(DataTable(corpus=empty_corpus(tmp_path / "corpus"))).validation is None


def test_a_corpus_is_read_with_its_own_vocabulary(tmp_path):
    corpus = empty_corpus(tmp_path / "corpus")
    character_tokenizer(["bcd"]).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="was prepared with another tokenizer"):
        read_data(DataTable(corpus=corpus, tokenizer=str(tmp_path / "other")))
    with pytest.raises(UserError, match=r"there is no tokenizer folder characters; name one$"):
        read_data(DataTable(corpus=corpus, tokenizer="characters"))
