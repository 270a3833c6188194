"""Modified Kneser-Ney against KenLM's own trainer.

oracles/lmplz/lmplz.arpa was written by `lmplz -o 3 --discount_fallback < train.txt` of KenLM 0.2.0 (the C++ sources of the
package of that version, compiled with Boost 1.74), which printed the discounts below; train.txt holds words drawn at random,
a text a line.
"""

from pathlib import Path

import numpy as np
import pytest

from lydite.models.ngram_arpa import arpa_table, read_arpa
from lydite.models.ngram_train import train_ngram

DISCOUNTS = ((0.157895, 1.64474, 2.63158), (0.674419, 1.38064, 1.3814), (0.895425, 0.656863, 2.70152))
FOLDER = Path(__file__).parents[1] / "oracles" / "lmplz"


def test_every_number_of_lmplz():
    path = FOLDER / "lmplz.arpa"
    file = read_arpa(path)
    words = [word.decode() for word in file.words]
    known = {word: i for i, word in enumerate(words)}
    theirs = arpa_table(file, np.arange(len(words)), len(words), path=path)
    lines = (FOLDER / "train.txt").read_text(encoding="utf-8").splitlines()
    documents = [np.array([known[word] for word in line.split()]) for line in lines]
    # <unk> is a word of the vocabulary that no document has, so both share out the same mass.
    trained = train_ngram(documents, order=3, vocab_size=len(words), bos=known["<s>"], eos=known["</s>"])
    assert trained.fallbacks == ()
    assert trained.discounts == tuple(pytest.approx(d, rel=1e-5) for d in DISCOUNTS)
    for ours, other in zip(trained.table.levels, theirs.levels, strict=True):
        assert np.array_equal(ours.words, other.words)
        assert np.array_equal(ours.offsets, other.offsets)
        np.testing.assert_allclose(ours.logprobs, other.logprobs, atol=1e-5)
        np.testing.assert_allclose(ours.backoffs, other.backoffs, atol=1e-5)
