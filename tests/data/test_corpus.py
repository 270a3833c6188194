"""Corpus folders: what was written is read, in any number of shards; what is torn or not complete says so."""

import hashlib
import multiprocessing

import msgspec
import numpy as np
import pytest

from lydite.data.corpus import INFO, WORK, CorpusInfo, Split, open_corpus
from lydite.data.shards import SplitWriter, token_dtype
from lydite.errors import DataError

RNG = np.random.default_rng(0)
DOCUMENTS = [RNG.integers(0, 300, size) for size in (5, 1, 9, 30, 2, 2, 4, 17)]
SENTENCES = [np.unique(np.r_[0, RNG.integers(0, len(d), 3)]) for d in DOCUMENTS]


def write(folder, dtype="uint16", **limits):
    folder.mkdir(exist_ok=True)
    with SplitWriter(folder, "train", dtype, **limits) as writer:
        for tokens, sentences in zip(DOCUMENTS, SENTENCES, strict=True):
            writer.add(tokens, sentences, num_bytes=3 * len(tokens), num_characters=2 * len(tokens))
        info = writer.close()
    record = CorpusInfo(hash="x", dtype=dtype, vocab_size=300, splits={"train": info})
    (folder / INFO).write_bytes(msgspec.json.encode(record))
    return record


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
@pytest.mark.parametrize("limits", [{}, {"max_tokens": 12}, {"max_documents": 3}])
def test_what_was_written_is_read(tmp_path, dtype, limits):
    write(tmp_path / "c", dtype, **limits)
    corpus = open_corpus(tmp_path / "c", verify=True)
    split = corpus.split("train")
    assert len(split) == len(DOCUMENTS) == len(list(split))
    for i, (tokens, sentences) in enumerate(zip(DOCUMENTS, SENTENCES, strict=True)):
        assert split[i].tolist() == tokens.tolist() == split[i - len(split)].tolist()
        assert split.sentences(i).tolist() == sentences.tolist()
        assert split.document_bytes(i) == 3 * len(tokens)
        assert split[i].dtype == dtype
        assert not split[i].flags.writeable
    assert [d.tolist() for d in split[2:5]] == [d.tolist() for d in DOCUMENTS[2:5]]
    assert split.lengths().tolist() == [len(d) for d in DOCUMENTS]
    assert (split.num_tokens, split.num_bytes, split.info.num_characters) == (70, 210, 140)
    with pytest.raises(IndexError):
        split[len(split)]


def test_shards_end_where_they_must_and_their_bytes_are_plain(tmp_path):
    info = write(tmp_path / "c", max_tokens=12).splits["train"]
    assert [shard.num_tokens for shard in info.shards] == [6, 9, 30, 8, 17]  # 30 and 17: alone, since longer than 12
    raw = (tmp_path / "c/train-00001.tokens").read_bytes()
    assert raw == DOCUMENTS[2].astype("<u2").tobytes()
    assert info.shards[1].sha256["tokens"] == hashlib.sha256(raw).hexdigest()


def test_a_split_goes_to_another_process(tmp_path):
    write(tmp_path / "c", max_tokens=12)
    split = open_corpus(tmp_path / "c").split("train")
    split[0]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(Split.__getitem__, (split, 3)).tolist() == DOCUMENTS[3].tolist()


def test_a_folder_that_is_no_complete_corpus_says_so(tmp_path):
    with pytest.raises(DataError, match=r"no corpus in .*does not exist; `lydite prepare` makes one"):
        open_corpus(tmp_path)
    (tmp_path / WORK).mkdir()
    with pytest.raises(DataError, match="is not complete; run the same"):
        open_corpus(tmp_path)
    (tmp_path / INFO).write_text("{}")
    with pytest.raises(DataError, match="is not a corpus of this version"):
        open_corpus(tmp_path)


def test_damage_is_found(tmp_path):
    write(tmp_path / "c")
    with pytest.raises(DataError, match="no split 'test'; it has train"):
        open_corpus(tmp_path / "c").split("test")
    path = tmp_path / "c/train-00000.tokens"
    whole = path.read_bytes()
    path.write_bytes(whole[:-2])
    with pytest.raises(DataError, match=r"has 138 bytes, and corpus.json says 140"):
        open_corpus(tmp_path / "c")
    path.write_bytes(whole[:-1] + b"\xff")
    open_corpus(tmp_path / "c")
    with pytest.raises(DataError, match="is damaged: its SHA-256"):
        open_corpus(tmp_path / "c", verify=True)
    path.unlink()
    with pytest.raises(DataError, match="cannot read"):
        open_corpus(tmp_path / "c")


def test_the_smaller_dtype():
    assert [token_dtype(n) for n in (300, 65536, 65537)] == ["uint16", "uint16", "uint32"]
