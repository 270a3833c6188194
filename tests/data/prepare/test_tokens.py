"""Token files of datatrove, written here by hand in its layout (TokenizedFile, datatrove 0.10.1): ids, index, metadata."""

import json
import struct

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from lydite.cli.app import main
from lydite.data.corpus import open_corpus
from lydite.data.prepare import BannedText, prepare, read_recipe
from lydite.data.prepare.simple import save_bytes_tokenizer
from lydite.errors import DataError, UserError

RNG = np.random.default_rng(5)
WORDS = [f"word{n}" for n in range(300)]
TEXTS = [" ".join(RNG.choice(WORDS, 30)) + ". " + "And this is the end of it." for _ in range(40)]
END = "</s>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer of bytes."""
    path = tmp_path_factory.mktemp("bytes")
    save_bytes_tokenizer(path)
    return path


def ids_of(folder, text):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return tokenizer.encode(text, add_special_tokens=False).ids


def write(path, documents, width=2, name="some/tokenizer", **changes):
    """`documents`: lists of ids. As datatrove packs them: <H or <I, <Q ends, three lines of metadata."""
    path.parent.mkdir(exist_ok=True)
    flat = [one for ids in documents for one in ids]
    ends = np.cumsum([len(ids) for ids in documents]).tolist()
    path.write_bytes(struct.pack(f"<{len(flat)}{'I' if width == 4 else 'H'}", *flat))
    lines = [f"{name}|{width}", str(len(flat)), f"{len(flat)} T"]
    files = {"index": struct.pack(f"<{len(ends)}Q", *ends), "metadata": "\n".join(lines).encode()} | changes
    for ending, data in files.items():
        if data is not None:
            path.with_name(f"{path.name}.{ending}").write_bytes(data)
    return path


def make(out, sources, *pairs, tokenizer, **options):
    return prepare(read_recipe(None, [str(s) for s in sources], pairs, str(tokenizer)), out, workers=1, **options)


def rows_of(out):
    corpus = open_corpus(out, verify=True)
    return {name: [document.tolist() for document in corpus.split(name)] for name in corpus.info.splits}


def jsonl(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def with_ends(folder, texts=TEXTS):
    end = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(END)
    return [[*ids_of(folder, text), end] for text in texts]


@pytest.mark.parametrize("width", [2, 4])
def test_tokens_give_the_corpus_of_their_text(tmp_path, folder, width):
    documents = with_ends(folder, [*TEXTS, "Grüße, 世界。 好！"])
    write(tmp_path / "ds" / "00000_00000_doc_shuffled.ds", documents[:25], width)
    write(tmp_path / "ds" / "00001_00000_doc_shuffled.ds", documents[25:], width)
    made = make(tmp_path / "a", [tmp_path / "ds"], "validation=0.2", tokenizer=folder)
    text = make(
        tmp_path / "b",
        [jsonl(tmp_path / "b.jsonl", [*TEXTS, "Grüße, 世界。 好！"])],
        "validation=0.2",
        tokenizer=folder,
    )
    # Ids, order, split, sentences and bytes: all of it is in the shards that the hash is made of.
    assert made.hash == text.hash
    assert made.splits == text.splits
    assert made.splits["validation"].num_documents > 2
    assert "some/tokenizer" in made.report["notes"][0]
    assert made.report["sources"]["ds"]["special"] == 0
    assert made.report["sources"]["ds"]["read"] == [41, width * sum(map(len, documents))]
    sentences = open_corpus(tmp_path / "a").split("train").sentences(0)
    assert len(sentences) >= 2


def test_ids_are_kept_and_not_made_again(tmp_path):
    """A vocabulary in which the same text has two spellings: the corpus has the one of the file."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate([*alphabet, "wo", "rd", "word"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("w", "o"), ("r", "d"), ("wo", "rd")]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    plain = [tokenizer.encode(text).ids for text in TEXTS]
    split = [vocabulary["wo"], vocabulary["rd"]]
    odd = [*split, *plain[0][1:]]
    write(tmp_path / "ds" / "a.ds", [odd, *plain[1:]])
    make(tmp_path / "out", [tmp_path / "ds"], "validation=0", tokenizer=tmp_path)
    assert sorted(rows_of(tmp_path / "out")["train"]) == sorted([odd, *plain[1:]])


def test_rules_duplicates_and_evaluation_items_are_judged_on_the_text(tmp_path, folder):
    documents = with_ends(folder)
    again = [*documents, documents[3], [*documents[4][:-1], 1], [documents[0][-1]]]
    write(tmp_path / "ds" / "a.ds", again)
    banned = [BannedText("quiz", "1", " ".join(TEXTS[7].split()[2:20]))]
    info = make(tmp_path / "out", [tmp_path / "ds"], "validation=0", tokenizer=folder, banned_texts=banned)
    removed = info.report["sources"]["ds"]["removed"]
    assert removed["exact duplicate"][0] == 2
    assert removed["holds quiz"][0] == 1
    assert removed["empty"][0] == 1
    assert info.splits["train"].num_documents == len(TEXTS) - 1
    gone = make(
        tmp_path / "none",
        [tmp_path / "ds"],
        "validation=0",
        "languages=zh,en",
        "rules=gopher_repetition",
        tokenizer=folder,
    )
    assert gone.report["sources"]["ds"]["languages"]


def test_tokens_and_text_mix(tmp_path, folder):
    write(tmp_path / "ds" / "a.ds", with_ends(folder, TEXTS[:20]))
    text = jsonl(tmp_path / "b.jsonl", TEXTS[20:])
    info = make(tmp_path / "mixed", [tmp_path / "ds", text], "validation=0.1", tokenizer=folder)
    assert (
        info.hash
        == make(tmp_path / "t", [jsonl(tmp_path / "all.jsonl", TEXTS)], "validation=0.1", tokenizer=folder).hash
    )


def test_special_tokens_within_are_taken_out_and_counted(tmp_path, folder):
    documents = with_ends(folder)
    documents[2] = [1, *documents[2][:30], 2, 2, *documents[2][30:]]
    write(tmp_path / "ds" / "a.ds", documents)
    info = make(tmp_path / "out", [tmp_path / "ds"], "validation=0", tokenizer=folder)
    assert info.report["sources"]["ds"]["special"] == 2
    assert sorted(rows_of(tmp_path / "out")["train"]) == sorted(ids[:-1] for ids in with_ends(folder))


def test_a_tokenizer_that_is_not_byte_level(tmp_path):
    """An unknown token stands for text and stays; sentences are not known, and the report says so."""
    words = [
        "[UNK]",
        "[CLS]",
        "[SEP]",
        ".",
        *dict.fromkeys(f"word{n}" for n in range(299)),
        "and",
        "this",
        "is",
        "the",
        "end",
        "of",
        "it",
    ]
    tokenizer = Tokenizer(models.WordPiece(vocab={word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]"])
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    documents = [[1, *tokenizer.encode(text).ids, 2] for text in [*TEXTS, "word1 strange word2"]]
    write(tmp_path / "ds" / "a.ds", documents)
    info = make(tmp_path / "out", [tmp_path / "ds"], "validation=0", tokenizer=tmp_path)
    assert sorted(rows_of(tmp_path / "out")["train"]) == sorted(ids[1:-1] for ids in documents)
    assert any("not byte-level" in note for note in info.report["notes"])
    assert info.splits["train"].num_sentences == len(documents)


def test_an_old_layout_and_files_without_metadata(tmp_path, folder):
    """Once the width was always 2 and the metadata did not say so; save_final_metadata=False leaves them out."""
    documents = with_ends(folder)
    old = "\n".join(["gpt2", str(sum(map(len, documents[:10]))), "1 kT"]).encode()
    write(tmp_path / "ds" / "a.ds", documents[:10], metadata=old)
    write(tmp_path / "ds" / "b.ds", documents[10:20], metadata=None)
    write(tmp_path / "ds" / "c.ds", documents[20:], width=4, metadata=None, loss=b"\1")
    info = make(tmp_path / "out", [tmp_path / "ds"], "validation=0", tokenizer=folder)
    assert sorted(rows_of(tmp_path / "out")["train"]) == sorted(ids[:-1] for ids in documents)
    assert info.report["notes"][0].endswith("name gpt2")
    assert "masks of the loss" in info.report["notes"][1]


def mistakes(documents):
    count = sum(map(len, documents))
    ends = np.cumsum([len(ids) for ids in documents])
    back = ends.copy()
    back[3] = back[1]
    return {
        "no a.ds.index beside it": {"index": None},
        "no whole number of ends": {"index": b"\0" * 12},
        "document 4 ends before it begins": {"index": back.astype("<u8").tobytes()},
        "its index ends at token": {"index": (ends + 1).astype("<u8").tobytes()},
        "of 4 bytes": {"metadata": f"t|4\n{count}\n-".encode()},
        "ids of '8' bytes": {"metadata": f"t|8\n{count}\n-".encode()},
        "metadata say 7;": {"metadata": b"t|2\n7\n7 T"},
        "the number of tokens is needed": {"metadata": b"t|2\nmany\n7 T"},
        "line 2 is '²', and the number": {"metadata": "t|2\n²\n7 T".encode()},  # a digit that int() does not take
    }


@pytest.mark.parametrize("expected", mistakes([[1]] * 6))
def test_files_that_contradict_each_other(tmp_path, folder, expected):
    documents = with_ends(folder)
    write(tmp_path / "ds" / "a.ds", documents, **mistakes(documents)[expected])
    with pytest.raises(DataError, match=expected) as error:
        make(tmp_path / "out", [tmp_path / "ds"], tokenizer=folder)
    assert "a.ds" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_tokenizer_that_is_not_theirs(tmp_path, folder):
    documents = with_ends(folder)
    write(tmp_path / "far" / "a.ds", [*documents, [5, 4464]])
    with pytest.raises(DataError, match=r"document 41: id 4,464 is beyond the vocabulary of 260"):
        make(tmp_path / "out", [tmp_path / "far"], tokenizer=folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    (tmp_path / "wide").mkdir()
    tokenizer.add_tokens([f"more{n}" for n in range(66_000)])
    tokenizer.save(str(tmp_path / "wide" / "tokenizer.json"))
    write(tmp_path / "ds" / "a.ds", documents)
    with pytest.raises(DataError, match=r"ids of 2 bytes, and the vocabulary of .* has 66,260.*name some/tokenizer"):
        make(tmp_path / "out", [tmp_path / "ds"], tokenizer=tmp_path / "wide")
    # Same size of the vocabulary, other tokens: random ids are almost never what their text is encoded to.
    merged = tmp_path / "other"
    merged.mkdir()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [("w", "o"), ("r", "d"), ("wo", "rd"), ("Ġ", "word")]
    vocabulary = {t: n for n, t in enumerate([*reversed(alphabet), *(a + b for a, b in pairs)])}
    other = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    other.pre_tokenizer, other.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    other.save(str(merged / "tokenizer.json"))
    with pytest.raises(DataError, match="40 documents decoded and encoded again, 40 have other tokens"):
        make(tmp_path / "out", [tmp_path / "ds"], tokenizer=merged)


def test_what_tokens_cannot_have(tmp_path, folder, capsys):
    write(tmp_path / "ds" / "a.ds", with_ends(folder))
    with pytest.raises(UserError, match=r"holds tokens; give the --tokenizer .*some/tokenizer"):
        make(tmp_path / "out", [tmp_path / "ds"], tokenizer="characters")
    with pytest.raises(UserError, match="c4 takes lines out of documents"):
        make(tmp_path / "out", [tmp_path / "ds"], "rules=c4", tokenizer=folder)
    with pytest.raises(SystemExit, match="0"):
        main(["prepare", str(tmp_path / "ds"), "--tokenizer", str(folder), "--out", str(tmp_path / "out")])
    assert "1 file of tokens" in capsys.readouterr().out
