"""The table over every family: its rows by rule, and that a comparison across rules is noticed."""

import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
sys.path.insert(0, str(TOP / "benchmarks"))

import every_family  # noqa: E402

from lydite.data.tokenizers.families import FAMILIES  # noqa: E402
from lydite.training.network import make_config  # noqa: E402
from lydite.training.recipe import ModelTable  # noqa: E402
from tests.families import save_family, unigram  # noqa: E402


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    rows = folder / "held.jsonl"
    rows.write_text('{"text": "The cat sat on the mat."}\n{"text": "Seven plus five is twelve."}\n')
    (folder / "held.toml").write_text(
        '[task]\nname = "held"\nkind = "heldout"\ndata = "held.jsonl"\ntext = "{{text}}"\n'
    )
    models = [str(save_family(folder / name, name)) for name in ("gpt2", "llama", "bert")]
    tasks = f"mini_grammar_en,{folder / 'held.toml'}"
    code, shown = every_family.lydite(
        "evaluate", *models, "--tasks", tasks, "--limit", "2", "--out", str(folder / "runs")
    )
    assert code == 0, shown
    return folder / "runs"


def test_rows_by_rule_with_bits_per_byte(runs):
    rules = every_family.rows_of(runs)
    assert {rule: {row["model"].name for row in own} for rule, own in rules.items()} == {
        "causal": {"gpt2", "llama"},
        "pseudo:within_word_l2r": {"bert"},
    }
    assert all(row["bits"] > 1 and len(row["mini"]) == 1 for own in rules.values() for row in own)
    assert every_family.table_of(rules).count("\n") == 4


def test_compare_refuses_other_rules_and_the_check_can_fail(runs):
    rules = every_family.rows_of(runs)
    assert every_family.check_compare(runs, rules) == 2  # bert beside the set of the other two, on two tasks
    llama = next(row for row in rules["causal"] if row["model"].name == "llama")
    wrong = {"causal": [row for row in rules["causal"] if row is not llama], "another": [llama]}
    with pytest.raises(SystemExit, match="different rules"):
        every_family.check_compare(runs, wrong)


def test_every_network_has_a_tokenizer_of_its_family():
    assert {tokenizer for _, tokenizer, _, _ in every_family.NETWORKS.values()} == set(FAMILIES)


def test_our_encoder_decoder_begins_with_padding():
    config = make_config(ModelTable(family="lydite_transformer", config={"shape": "encoder-decoder"}), unigram("t5"))
    assert config.decoder_start_token_id == config.pad_token_id == 0
