"""Reading samples for the page: what is kept, what is counted, and the numbers made from single records."""

import math

import numpy as np
import pytest

from lydite.report.breakdown import bins, expected_calibration_error
from lydite.report.digest import Light, bits_per_byte, choice_shares, complete, digest
from tests.report.records import choice, document, generation, run, write_out


def test_shares_are_the_softmax_of_totals():
    scipy_special = pytest.importorskip("scipy.special")
    totals = (-700.0, -701.5, -703.0)
    record = choice("a", choices=("x", "y", "z"), totals=totals)
    np.testing.assert_allclose(choice_shares(record), scipy_special.softmax(totals), rtol=1e-12)


def test_ties_share_the_credit(tmp_path):
    tied = choice("a", choices=("x", "y", "z"), totals=(-1.0, -1.0, -2.0), gold=1)
    write_out(tmp_path, [(run(), [tied, choice("b", totals=(-1.0, -1.0), gold=1), choice("c")])])
    rows = {row.id: row for row in digest(run(), "small", tmp_path / "small" / "colours", keep=9).rows}
    assert {id: row.credit for id, row in rows.items()} == {"a": 0.5, "b": 0.5, "c": 1.0}
    assert rows["b"].confidence == 0.5


def test_no_shares_without_two_choices():
    assert choice_shares(choice("a", failure="nan")) == []
    assert choice_shares(generation("a", "it", right=True)) == []
    assert choice_shares(document("a", "text")) == []


def test_bits_per_byte_counts_bytes_not_characters():
    record = document("a", "金石", nats_per_character=3 * math.log(2))
    assert bits_per_byte(record) == pytest.approx(1.0)  # two characters of three bytes, 3 bits each
    assert bits_per_byte(choice("a")) is None


def test_calibration_bins_agree_with_scikit_learn():
    calibration = pytest.importorskip("sklearn.calibration")
    rng = np.random.default_rng(5)
    confidence = rng.uniform(0.2, 1.0, 400)
    right = rng.random(400) < confidence**2
    rows = [
        Light(str(i), None, None, {}, float(c), float(r), None)
        for i, (c, r) in enumerate(zip(confidence, right, strict=True))
    ]
    found = bins(rows)
    accuracy, mean = calibration.calibration_curve(right, confidence, n_bins=10, strategy="uniform")
    np.testing.assert_allclose([b.accuracy for b in found], accuracy)
    np.testing.assert_allclose([b.confidence for b in found], mean)
    weights = np.histogram(confidence, np.linspace(0, 1, 11))[0]
    expected = np.average(np.abs(accuracy - mean), weights=weights[weights > 0])
    assert expected_calibration_error(found) == pytest.approx(expected)
    assert sum(b.n for b in found) == 400


def test_a_confidence_of_one_is_in_the_last_bin():
    found = bins([Light("a", None, None, {}, 1.0, 1.0, None)])
    assert [(b.n, b.accuracy) for b in found] == [(1, 1.0)]
    assert expected_calibration_error([]) is None


def test_counts(tmp_path):
    records = [
        choice("a"),
        choice("b", failure="nan"),
        choice("c", failure="nan"),
        choice("d", truncated=3),
        choice("e", join="spanned"),
        generation("f", "...", right=False, finish="length"),
    ]
    out = write_out(tmp_path, [(run(), records)])
    found = digest(run(), "small", out / "small" / "colours", keep=10)
    assert found.failures == {"nan": 2}
    assert (found.num_truncated, found.num_spanned, found.num_cut, found.num_no_answer) == (1, 1, 1, 1)
    assert len(found.rows) == 6


def test_the_same_samples_are_kept_for_every_model(tmp_path):
    ids = [f"id-{i}" for i in range(200)]
    first = [choice(id, failure="nan" if id == "id-7" else "") for id in ids]
    second = [choice(id, totals=(-3.0, -1.0)) for id in reversed(ids)]
    write_out(tmp_path, [(run(name="a"), first), (run(name="b"), second)])
    one = digest(run(name="a"), "a", tmp_path / "a" / "colours", keep=20)
    other = digest(run(name="b"), "b", tmp_path / "b" / "colours", keep=20)
    assert len(other.kept) == 20
    assert "id-7" in one.kept
    assert len((one.kept.keys() - {"id-7"}) - other.kept.keys()) <= 1  # id-7 may stand in for one of the other's
    complete([one, other])
    assert one.kept.keys() == other.kept.keys()
    assert other.kept["id-7"].scores[0].value == 0.0
    assert len(one.rows) == 200


def test_a_run_that_has_only_begun(tmp_path):
    folder = tmp_path / "a" / "colours"
    folder.mkdir(parents=True)
    assert digest(run(), "a", folder, keep=5).rows == []
