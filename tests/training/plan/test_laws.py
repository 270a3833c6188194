"""Scaling laws against the values that their papers print."""

import pytest

from lydite.training.plan import laws
from lydite.training.plan.laws import BESIROGLU, HOFFMANN_3, MUENNIGHOFF


@pytest.mark.parametrize(
    ("approach", "parameters", "operations", "tokens"),
    [
        # Hoffmann et al. 2022, table 3
        (0, 400e6, 1.92e19, 8.0e9),
        (0, 10e9, 1.23e22, 205.1e9),
        (0, 175e9, 3.85e24, 3.7e12),
        # and table A3, approach 2
        (1, 1e9, 1.20e20, 20.0e9),
        (1, 67e9, 6.88e23, 1.7e12),
        (1, 1e12, 1.59e26, 26.5e12),
    ],
)
def test_rows_of_the_chinchilla_tables(approach, parameters, operations, tokens):
    found = laws.hoffmann(operations)[approach]
    assert found.parameters == pytest.approx(parameters, rel=0.001)
    assert found.tokens == pytest.approx(tokens, rel=0.03)  # tokens are printed with two digits


def test_the_tables_are_consistent_with_6nd_so_no_row_was_mistyped():
    for rows in (laws._APPROACH_1, laws._APPROACH_2):
        for parameters, operations, tokens in rows:
            assert 6 * parameters * tokens == pytest.approx(operations, rel=0.05)


def test_approach_3_has_the_papers_exponents():
    """Table 2: a = 0.46, b = 0.54 (0.45 and 0.55 follow from the exponents as printed)."""
    (n0, d0), (n1, d1) = HOFFMANN_3.optimum(1e20), HOFFMANN_3.optimum(1e21)
    assert n1 / n0 == pytest.approx(10**0.46, rel=0.03)
    assert d1 / d0 == pytest.approx(10**0.54, rel=0.03)
    assert HOFFMANN_3.loss(70e9, 1.4e12) == pytest.approx(1.94, abs=0.01)


def test_the_replication_agrees_with_twenty_tokens_a_parameter():
    """Besiroglu et al. 2024: the corrected fit is consistent with the 20 to 1 that Chinchilla was trained with."""
    found = laws.besiroglu(6 * 70e9 * 1.4e12)
    assert found.tokens / found.parameters == pytest.approx(20, rel=0.15)
    # Its exponents: a = beta / (alpha + beta) = 0.513.
    assert BESIROGLU.optimum(1e21)[0] / BESIROGLU.optimum(1e20)[0] == pytest.approx(10**0.513, rel=0.002)


@pytest.mark.parametrize("law", [HOFFMANN_3, BESIROGLU, MUENNIGHOFF])
def test_the_optimum_is_the_lowest_loss_of_its_budget(law):
    parameters, tokens = law.optimum(1e22)
    assert 6 * parameters * tokens == pytest.approx(1e22)
    best = law.loss(parameters, tokens)
    for factor in (0.9, 1.1):
        assert law.loss(parameters * factor, tokens / factor) > best
    assert law.tokens_for(parameters) == pytest.approx(tokens, rel=1e-6)
    assert law.parameters_for(tokens) == pytest.approx(parameters, rel=1e-6)


def test_kaplan():
    """Appendix A: at one PF-day 1.3e9 parameters, 2e10 tokens; ten times the computation, 5.4 and 1.9 times as much of each."""
    found = laws.kaplan(laws.PF_DAY)
    assert (found.parameters, found.tokens) == (1.3e9, 2e10)
    more = laws.kaplan(10 * laws.PF_DAY)
    assert more.parameters / found.parameters == pytest.approx(5.37, abs=0.01)
    assert more.tokens / found.tokens == pytest.approx(1.86, abs=0.01)
    # With data without end the second term goes, and (6.4e13 / N)^0.076 is left.
    assert laws.kaplan_loss(1e9, 1e30) == pytest.approx((6.4e4) ** 0.076, rel=1e-6)


def test_repeated_data():
    """Muennighoff et al. 2023: four epochs are nearly as good as fresh data; beyond forty, nothing is gained."""
    assert laws.effective_tokens(1e9, 1) == 1e9
    assert laws.effective_tokens(1e9, 4) / 4e9 == pytest.approx(0.93, abs=0.005)
    assert laws.effective_tokens(1e9, 1e6) == pytest.approx(16.39e9)
    fresh = MUENNIGHOFF.loss(8.7e9, 178e9)
    # Their 8.7B model on 44B tokens four times over: 0.5% more validation loss than on 178B fresh ones.
    assert laws.constrained_loss(8.7e9, 44e9, 4) / fresh - 1 < 0.02
    assert laws.constrained_loss(1e9, 1e12, 1) == pytest.approx(MUENNIGHOFF.loss(1e9, 1e12))


def test_a_size_that_no_law_saw_says_so():
    assert "outside" in laws.besiroglu(1e15).note
    assert laws.besiroglu(1e21).note == ""
    assert "beyond" in laws.hoffmann(1e18)[0].note or "outside" in laws.hoffmann(1e18)[0].note
