"""Corruption against the numbers of the papers, and against what must hold of every draw."""

import numpy as np
import pytest

from lydite.training.objectives import noise
from tests.training.objectives.networks import close


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_t5_lengths_are_those_of_its_code():
    """random_spans_helper: 512 inputs at density 0.15 and mean span 3.0 are made of 568 tokens and have 114 targets."""
    assert noise.fitting_length(512, 0.15, 3.0) == 568
    assert noise.corrupted_lengths(568, 0.15, 3.0) == (512, 114)
    assert noise.corrupted_counts(568, 0.15, 3.0) == (85, 28)


def test_t5_spans(rng):
    lengths, total = [], np.zeros(568)
    for _ in range(200):
        mask = noise.span_mask(568, 0.15, 3.0, rng)
        assert mask.sum() == 85
        edges = np.flatnonzero(np.diff(mask.astype(int)))
        assert len(edges) == 2 * 28 - 1  # 28 runs; the first token is no noise, the last one is
        assert not mask[0]
        lengths += np.diff(np.append(edges, 567))[::2].tolist()
        total += mask
    assert np.mean(lengths) == pytest.approx(85 / 28)
    assert total[5:-20].max() < 200 * 0.3  # no place is favoured, but for the ends
    for n in range(2, 60):
        for density in (0.15, 0.5, 0.9):
            counts = noise.corrupted_counts(n, density, 3.0)
            assert noise.span_mask(n, density, 3.0, rng).sum() == counts[0]
            assert len(noise.span_mask(n, density, 3.0, rng)) == n


def test_sentinels_give_the_document_back(rng):
    ids = np.arange(100, 668)
    sentinels = np.arange(1099, 1059, -1)
    source, target = noise.to_sentinels(ids, noise.span_mask(568, 0.15, 3.0, rng), sentinels)
    assert (len(source) + 1, len(target) + 1) == (512, 114)
    assert [t for t in source if t >= 1000] == [t for t in target if t >= 1000] == sentinels[:28].tolist()
    spans = {int(part[0]): part[1:] for part in np.split(target, np.flatnonzero(target >= 1000)[1:])}
    restored = np.concatenate([spans[int(token)] if token >= 1000 else [token] for token in source])
    assert restored.tolist() == ids.tolist()


def test_spanbert_lengths(rng):
    """Joshi et al. 2020: geometric with p = 0.2, at most 10: mean 3.8."""
    lengths = noise.geometric_lengths(200_000, 0.2, 10, rng)
    assert lengths.sum() == 200_000
    assert np.mean(lengths) == pytest.approx(3.8, abs=0.05)
    assert lengths.max() == 10
    shares = np.bincount(lengths)[1:] / len(lengths)
    assert shares[1] / shares[0] == pytest.approx(0.8, abs=0.03)


def test_bart_lengths(rng):
    """Poisson with mean 3: exp(-3) of the spans have length 0."""
    lengths = noise.poisson_lengths(150_000, 3.0, rng)
    assert lengths.sum() == 150_000
    assert np.mean(lengths) == pytest.approx(3.0, abs=0.04)
    assert close(float((lengths == 0).mean()), np.exp(-3), len(lengths))


def test_bart_infilling(rng):
    words = rng.integers(1, 4, size=400)
    ids = np.arange(10, 10 + int(words.sum()))
    starts = 10 + np.cumsum(words) - words
    masked, masks, total = 0, 0, 0
    for _ in range(300):
        out = noise.infill(ids, words, 5, (0.3, 3.0), rng)
        kept = out[out != 5]
        assert (np.diff(kept) > 0).all()  # a subsequence: order is kept
        gone = np.setdiff1d(ids, kept)
        begun = np.isin(gone, starts)
        assert begun[0] or not len(gone)
        word = np.repeat(np.arange(400), words)[gone - 10]
        assert len(gone) == words[np.unique(word)].sum()  # whole words
        masked += len(np.unique(word))
        masks += int((out == 5).sum())
        total += 400
    assert masked / total == pytest.approx(0.3, abs=1e-3)
    # A mask for each span: of n spans drawn, of Poisson length, 3 n words are covered.
    assert masked / masks == pytest.approx(3.0, rel=0.03)


def test_xlnet_spans(rng):
    """One token in six, in spans of 1 to 5, all lengths alike."""
    share, lengths = 0, []
    for _ in range(400):
        chosen = noise.choose_context_spans(1200, 6, 5, rng)
        assert (np.diff(chosen) > 0).all()
        assert chosen[-1] < 1200
        share += len(chosen)
        runs = np.split(chosen, np.flatnonzero(np.diff(chosen) > 1) + 1)
        lengths += [len(run) for run in runs]
    assert share / 400 / 1200 == pytest.approx(1 / 6, abs=0.001)
    assert np.mean(np.array(lengths) <= 5) > 0.9  # two spans may touch


def test_shares_are_exact_in_the_mean(rng):
    for n in (1, 3, 10, 100):
        found = [len(noise.choose(n, 0.15, rng)) for _ in range(4000)]
        assert np.mean(found) == pytest.approx(max(1.0, n * 0.15), abs=0.04)
        assert max(found) - min(found) <= 1
    places = np.bincount(np.concatenate([noise.choose(10, 0.3, rng) for _ in range(20_000)]))
    assert all(close(count / 20_000, 0.3, 20_000) for count in places)


def test_whole_words_make_up_the_share(rng):
    lengths = rng.integers(1, 6, size=200)
    found = []
    for _ in range(500):
        words = noise.choose_whole(lengths, 0.15, rng)
        assert (np.diff(words) > 0).all()
        found.append(lengths[words].sum())
    assert np.mean(found) == pytest.approx(lengths.sum() * 0.15, abs=0.3)
    assert len(noise.choose_whole(np.array([9]), 0.15, rng)) == 1


@pytest.mark.parametrize("apart", [False, True])
def test_placed_spans_never_overlap(rng, apart):
    counts = np.zeros(40)
    for _ in range(3000):
        lengths = np.array([3, 1, 5])
        starts = noise.place(40, lengths, rng, apart=apart)
        assert (starts[1:] >= starts[:-1] + lengths[:-1] + apart).all()
        assert starts[0] >= 0
        assert starts[-1] + 5 <= 40
        counts[noise.ranges(starts, lengths)] += 1
    assert counts[5:35].min() > 0.1 * 3000
    full = noise.place(5, np.array([2, 3]), rng, apart=True)  # no room to stand apart
    assert full.tolist() == [0, 2]
