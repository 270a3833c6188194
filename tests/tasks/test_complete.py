"""What every task and every metric must have; a new one without it fails here.

A task: a row in docs/tasks.md that says all there is to say, a golden prompt, and models that know nothing, which land on
chance or on failed. A metric: a test against something outside of this code.
"""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lydite.stats.estimates import estimate
from lydite.tasks import list_tasks, load_tasks
from lydite.types import Completion, Failure, LogProbs, ScoreRequest
from tests.tasks import test_benchmarks, test_text_tasks, test_understanding
from tests.tasks.layouts import make_data
from tests.tasks.layouts_text import make_texts
from tests.tasks.nulls import broken, by_hash, constant, echo, empty
from tests.tasks.understanding import make_understanding

TESTS = Path(__file__).parents[1]
LEAVES = [entry for entry in list_tasks() if not entry.members]
LM_EVAL = json.loads((TESTS / "golden" / "lm_eval.json").read_text(encoding="utf-8"))
GOLDEN = {path.stem for path in (TESTS / "golden").glob("*.txt")} | set(LM_EVAL["plain"])
TRIED = {
    *test_benchmarks.NAMES,
    *test_benchmarks.MINI,
    *test_text_tasks.NAMES,
    *test_understanding.LOCAL,
    *test_understanding.ONLY_LOCAL,
}
"""Tasks for which there are files in miniature."""
ALIKE = {
    "blimp_": "blimp_causative",
    "mmlu_": "mmlu_astronomy",
    "cmmlu_": "cmmlu_agronomy",
    "xquad_": "xquad_en",
    "bbq_": "bbq_age",
    "winobias_": "winobias_type1",
    "mlqa_": "mlqa_zh_de",
    "multi30k_": "multi30k_en_de",
    "wmt14_": "wmt14_de_en",
    "wmt16_": "wmt14_de_en",
    "flores_": "flores_en_de",
}
"""Beginning of the names of tasks that differ only in names and words, to the one that stands for them."""

METRICS = {
    "tests/metrics/test_choice.py": {
        "test_accuracy_without_ties_is_argmax": "acc acc_norm acc_bytes acc_pmi",
        "test_brier_is_scikit_learns": "brier",
        "test_margin_is_signed_and_takes_the_best_of_several_golds": "margin",
    },
    "tests/tasks/test_families.py": {
        "test_corrections_for_length_divide_by_characters_and_by_bytes": "acc_norm acc_bytes",
        "test_a_neutral_question_takes_the_prior_of_choices_away": "acc_pmi",
    },
    "tests/metrics/test_labels.py": {
        "test_against_scikit_learn": "mcc f1 macro_f1 acc_f1 acc_macro_f1",
        "test_correlations_against_scipy": "pearson spearman pearson_spearman",
    },
    "tests/metrics/test_perplexity.py": {
        "test_a_fair_coin_a_byte_is_one_bit": "bits_per_byte byte_perplexity",
        "test_the_corpus_is_not_the_mean_of_its_documents": "word_perplexity",
        "test_finish_works_on_many_resamples_at_once": "perplexity",
    },
    "tests/metrics/test_text.py": {
        "test_squad_cases": "exact_match f1",
        "test_numbers_compare_as_numbers": "strict_match",
    },
    "tests/metrics/test_rouge.py": {"test_stored_values_of_rouge_score": "rouge1 rouge2 rougeL rougeLsum"},
    "tests/metrics/test_summary.py": {
        "test_by_hand": "compression coverage density novel_1 novel_2",
        "test_repetition_and_chinese": "repetition",
    },
    "tests/metrics/test_translation.py": {"test_is_sacrebleus": "bleu chrf chrf++ ter"},
    "tests/tasks/test_text_tasks.py": {
        "test_no_answer_is_an_answer": "answerable_exact_match answerable_f1 unanswerable_exact_match",
        "test_best_threshold_is_the_official_one": "best_exact_match best_f1",
    },
    "tests/tasks/test_understanding.py": {
        "test_multirc_by_hand": "f1_a f1_a_em",
        "test_record_by_hand": "f1_em",
        "test_gender_parity_by_hand": "gender_parity",
        "test_winogender_by_hand": "acc_female acc_male acc_neutral acc_gotcha acc_not_gotcha gender_gap gotcha_gap",
        "test_winobias_by_hand": "acc_pro acc_anti stereotype_gap",
        "test_crows_pairs_by_hand": "pct_stereotype likelihood_diff",
        "test_stereoset_by_hand": "icat lms ss",
        "test_bbq_by_hand": "acc_amb acc_disamb bias_amb bias_disamb",
        "test_text_without_an_answer_is_wrong_and_says_so": "answered",
    },
}
"""File to test to the metrics that it holds against another implementation, a published case, or a sum done by hand."""


def stands_for(name):
    """The task in miniature that is worded as this one is."""
    labelled = name.removesuffix("_test")
    if labelled in TRIED:
        return labelled
    return next((one for start, one in ALIKE.items() if labelled.startswith(start)), labelled)


def test_every_task_says_all_there_is_to_say():
    missing = [
        f"{entry.name}: {name}"
        for entry in LEAVES
        for name in ("source", "licence", "splits", "chance", "defects", "description")
        if not getattr(entry, name)
    ]
    assert not missing


def test_every_task_has_a_golden_prompt_and_files_in_miniature():
    assert [entry.name for entry in LEAVES if stands_for(entry.name) not in GOLDEN] == []
    assert [entry.name for entry in LEAVES if stands_for(entry.name) not in TRIED] == []


def test_every_metric_has_an_oracle():
    held = {name for tests in METRICS.values() for names in tests.values() for name in names.split()}
    used = {metric.name for entry in LEAVES for metric in entry.load(None).metrics}
    assert used == held
    for file, tests in METRICS.items():
        tree = ast.parse((TESTS.parent / file).read_text(encoding="utf-8"))
        there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert set(tests) <= there, file


# --------------------------------------------------------------------------------------- null models


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("all")
    for make in (make_data, make_texts, make_understanding):
        make(folder)
    return folder


def written(model):
    """A model of texts that finds every choice equally likely."""
    return lambda request: constant(request) if isinstance(request, ScoreRequest) else model(request)


NULLS = {"constant": constant, "random": by_hash, "empty": written(empty), "echo": written(echo), "NaN": broken}


def taken(task, view, model) -> Iterator[tuple]:
    """(metric, scores) of every metric that the view gives."""
    scores = {}
    for sample in task.samples("test"):
        requests = task.views[view](sample, task.prompt(sample))
        for score in task.score(sample, [model(request) for request in requests]):
            scores.setdefault(score.metric, []).append(score)
    return ((metric, scores[metric.name]) for metric in task.metrics if metric.name in scores)


@pytest.mark.parametrize("null", NULLS)
@pytest.mark.parametrize("name", sorted(TRIED))
def test_models_that_know_nothing(name, null, data):
    [task], _ = load_tasks([name], data_dir=data)
    for view in [view for view in ("score", "generate") if view in task.views]:
        chances = [task.chance(sample) for sample in task.samples("test")]
        for metric, scores in taken(task, view, NULLS[null]):
            found = estimate(metric, scores, resamples=20)
            if null == "NaN":
                assert {score.status for score in scores} == {"error"}, metric.name
                assert (found.value, found.n_failed) == (None, len(scores))
                continue
            assert found.n_failed == 0, (metric.name, scores[0])
            if found.value is not None and (metric.bounds or metric.unit == "proportion"):
                low, high = metric.bounds or (0.0, 1.0)
                assert low <= found.value <= high, metric.name
            known = [chance[metric.name] for chance in chances if metric.name in chance]
            # With the same log-probability for everything a choice is an even guess. Texts are never right by themselves.
            even = metric.name.startswith("acc") and metric.name not in ("acc_norm", "acc_bytes")  # which see lengths
            if view == "score" and null == "constant" and len(known) == len(chances) and even:
                assert found.value == pytest.approx(sum(known) / len(known)), metric.name
            if view == "generate" and null == "empty" and metric.name in ("exact_match", "f1", "bleu", "rouge1", "acc"):
                assert found.value == pytest.approx(1 / 3 if name == "squad2" else 0), metric.name


def test_the_null_models_are_what_they_say():
    request = ScoreRequest(sample_id="1", index=0, context="a", continuation=" b")
    assert isinstance(constant(request), LogProbs)
    assert isinstance(broken(request), Failure)
    assert isinstance(empty(request), Completion)
