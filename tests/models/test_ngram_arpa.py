"""ARPA files: what KenLM itself says of one, round trips, and files that are torn or wrong."""

import gzip

import numpy as np
import pytest

from lydite.errors import ModelError
from lydite.models.ngram_arpa import arpa_table, read_arpa, write_arpa
from tests.models.test_ngram_table import BOS, EOS, documents, train

# A file as SRILM writes it: not interpolated, a weight missing, -99 for <s>, words of two scripts.
SMALL = """\\data\\
ngram 1=6
ngram 2=5
ngram 3=2

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.5
-0.7\t</s>
-0.6\tthe\t-0.3
-0.9\tcat\t-0.2
-1.1\t猫

\\2-grams:
-0.2\t<s> the\t-0.1
-0.4\tthe cat\t-0.25
-0.3\tcat </s>
-0.8\tthe 猫
-1.5\tthe the

\\3-grams:
-0.1\t<s> the cat
-0.15\tthe cat </s>

\\end\\
"""
# log10 p and length of the n-gram that was found, from `kenlm.Model(file).full_scores(sentence)` of kenlm 0.3.0.
KENLM: dict[str, list[tuple[float, int]]] = {
    "the cat": [(-0.2, 2), (-0.1, 3), (-0.15, 3)],
    "the dog": [(-0.2, 2), (-1.4, 1), (-0.7, 1)],
    "cat the 猫": [(-1.4, 1), (-0.8, 1), (-0.8, 2), (-0.7, 1)],
    "the the": [(-0.2, 2), (-1.6, 2), (-1.0, 1)],
}


def write(tmp_path, text=SMALL, name="small.arpa"):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def load(path):
    file = read_arpa(path)
    words = [word.decode() for word in file.words]
    return words, arpa_table(file, np.arange(len(words)), len(words), path=path)


@pytest.mark.parametrize("name", ["small.arpa", "small.arpa.gz"])
def test_as_kenlm_scores_it(tmp_path, name):
    words, table = load(write(tmp_path, name=name))
    for sentence, expected in KENLM.items():
        known = [words.index(w) if w in words else 0 for w in sentence.split()]
        scores = table.score([np.array([1, *known, 2])], [1]).logprobs / np.log(10)
        np.testing.assert_allclose(scores, [number for number, _ in expected], atol=1e-6)


def test_greedy_where_a_listed_word_is_less_likely_than_its_backoff(tmp_path):
    """After "the", "the" has -1.5 of its own, though its backoff would give -0.9: bounds alone cannot decide there."""
    _, table = load(write(tmp_path))
    text = np.array([1, 3, 4, 2])
    scores = table.score([text], [1])
    for i in range(1, 4):
        values = table.distribution(text[:i].tolist())
        truth = values[text[i]] >= values.max() - 1e-9
        assert table.is_greedy(text, i) == truth
        assert scores.undecided[i - 1] or bool(scores.greedy[i - 1]) == truth


@pytest.mark.parametrize("eos", [EOS, BOS])
@pytest.mark.parametrize("smoothing", ["kneser_ney", "witten_bell"])
@pytest.mark.parametrize("order", [1, 2, 4])
def test_written_and_read_back(tmp_path, order, smoothing, eos):
    table = train(order, smoothing, eos=eos).table
    names = ["<bos>", "<eos>", "猫", "b", "c", "d", "e", "f", "ĠĊ"]
    write_arpa(table, tmp_path / "m.arpa", names, bos=BOS, eos=eos)
    file = read_arpa(tmp_path / "m.arpa")
    own = {b"<s>": BOS, b"</s>": eos} | {name.encode(): i for i, name in enumerate(names) if i not in (BOS, eos)}
    again = arpa_table(file, np.array([own[word] for word in file.words]), 9, path=tmp_path / "m.arpa")
    assert again.num_ngrams == table.num_ngrams
    for doc in documents(seed=7)[:20]:
        text = [np.array([BOS, *doc, eos])]
        np.testing.assert_allclose(again.score(text, [1]).logprobs, table.score(text, [1]).logprobs, atol=2e-6)
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("\\data\\", "data"), "has no line"),
        (("\\end\\", ""), "is torn"),
        (("ngram 2=5", "ngram 2=6"), "has 5 2-grams but says 6"),
        (("ngram 3=2", "ngram 4=2"), "differ"),
        (("-0.4\tthe cat", "nan\tthe cat"), "line 16: has 'nan' where a number belongs"),
        (("-0.4\tthe cat", "-0.4\tthe dog"), "line 16: holds 'dog', which is none of the 1-grams"),
        (("-0.4\tthe cat\t-0.25", "-0.4\tthe cat\t-0.25\t7"), "line 16: has 5 fields where a 2-gram has 3 or 4"),
        (("-0.4\tthe cat", "0.4\tthe cat"), "positive"),
        (("-0.1\t<s> the cat", "-0.1\tcat cat cat"), "has no context"),
        (("-1.5\tthe the", "-1.5\tthe cat\t0"), "twice"),
        (("-0.9\tcat\t-0.2", "-0.9\tthe\t-0.2"), "twice"),
    ],
)
def test_files_that_do_not_fit(tmp_path, change, says):
    path = write(tmp_path, SMALL.replace(*change))
    with pytest.raises(ModelError, match=says.replace("\\", "\\\\")) as raised:
        load(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_torn_gzip_and_missing_file(tmp_path):
    path = write(tmp_path, name="small.arpa.gz")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ModelError, match="torn"):
        read_arpa(path)
    path.write_bytes(b"no gzip")
    with pytest.raises(ModelError, match="torn or no gzip"):
        read_arpa(path)
    with pytest.raises(ModelError, match="no file"):
        read_arpa(tmp_path / "none.arpa")


def test_names_that_cannot_be_written(tmp_path):
    table = train(2).table
    for names, says in (
        (["<s>", "</s>", "a b", *"cdefgh"], "white space"),
        (["<s>", "</s>", "a", "a", *"defgh"], "two tokens"),
    ):
        with pytest.raises(ModelError, match=says):
            write_arpa(table, tmp_path / "m.arpa", names, bos=BOS, eos=EOS)
    with pytest.raises(ModelError, match="no probabilities"):
        write_arpa(train(2, "stupid_backoff").table, tmp_path / "m.arpa", list("abcdefghi"), bos=BOS, eos=EOS)
    assert not list(tmp_path.iterdir())
