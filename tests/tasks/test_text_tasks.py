"""Reading, summarising and translating: original files and the hub, golden prompts, official scores, null models."""

import math
import os
import random
from pathlib import Path

import pytest

from lydite.adapt.prompt import prompted
from lydite.engine.stops import stop_in
from lydite.errors import DataError
from lydite.evaluate import evaluate
from lydite.tasks import list_tasks, load_tasks, sources
from lydite.tasks.coqa import left_out
from lydite.tasks.parallel import aligned_files
from lydite.tasks.sources import Found
from lydite.tasks.squad import best_score
from lydite.types import Completion, LogProbs, ModelInfo, ScoreRequest, Span, Usage
from tests.tasks.layouts_text import HUB, make_texts
from tests.tasks.nulls import broken, empty, mean, take
from tests.tasks.test_benchmarks import rendered

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = tuple(HUB)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return make_texts(tmp_path_factory.mktemp("texts"))


def one(name, data=None):
    [task] = load_tasks([name], data_dir=data)[0]
    return task


@pytest.mark.parametrize("name", NAMES)
def test_golden_prompts(name, data):
    # Zero-shot, and with one example where the task has its examples in a file here.
    task = one(name, data)
    found = rendered(task, shots=0)
    if name in ("squad2", "nq_open", "multi30k_en_de"):
        found += rendered(task, shots=1)
    path = GOLDEN / f"{name}.txt"
    if not path.exists():
        path.write_text(found, encoding="utf-8")
        pytest.fail(f"wrote {path}; read it, then run again")
    assert found == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_the_hub_gives_the_same_samples(name, data, monkeypatch):
    monkeypatch.delenv("LYDITE_DATA", raising=False)
    monkeypatch.setattr(sources, "hub_is_possible", lambda: True)
    monkeypatch.setattr(Found, "_from_hub", lambda self, split: iter(HUB[name]))
    assert list(one(name).samples("test")) == list(one(name, data).samples("test"))


@pytest.mark.parametrize("name", NAMES)
def test_null_models(name, data):
    task = one(name, data)
    failed = take(task, broken)
    assert set(failed) == {metric.name for metric in task.metrics}
    assert {score.status for row in failed.values() for score in row} == {"error"}
    if name == "squad2":
        return  # an empty answer is an answer there, and tested below
    scores = take(task, empty)
    for metric in task.metrics:
        worst = 1.0 if metric.name == "ter" else 0.0
        assert mean(scores[metric.name]) == worst, metric.name


@pytest.mark.parametrize("name", NAMES)
def test_the_target_itself_is_perfect(name, data):
    task = one(name, data)
    targets = {sample.id: sample.targets[0] if sample.targets else "" for sample in task.samples("test")}

    def oracle(request):
        if isinstance(request, ScoreRequest):
            return LogProbs(
                tokens=("x",), logprobs=(-9.0 if targets[request.sample_id] else -0.01,), greedy=False, rule="t"
            )
        return Completion(text=" " + targets[request.sample_id], num_tokens=1, finish="stop")

    class Oracle:
        info = ModelInfo(name="oracle", family="null", rule="t", can=("generate", "score"), fingerprint="x")
        usage = Usage()

        def answer(self, requests):
            yield from enumerate(map(oracle, requests))

    found = {estimate.metric: estimate.value for estimate in evaluate(Oracle(), task).estimates}
    for metric, value in found.items():
        if metric in ("compression", "coverage", "density", "novel_1", "novel_2"):
            continue
        if name == "coqa":  # its official rule compares with the other three answers
            assert 0 < value < 1
        else:
            assert value == pytest.approx(0.0 if metric in ("ter", "repetition") else 1.0), metric


@pytest.mark.parametrize("name", NAMES)
def test_what_the_registry_says(name):
    [entry] = [entry for entry in list_tasks() if entry.name == name]
    assert all((entry.source, entry.licence, entry.splits, entry.chance, entry.defects, entry.description))


def test_a_missing_benchmark_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "hub_is_possible", lambda: False)
    for name, words in (("squad2", "squad/dev-v2.0.json"), ("wmt16_ro_en", "newstest2016-roen-src.ro.sgm")):
        with pytest.raises(DataError, match=words) as caught:
            list(one(name, tmp_path).samples("test"))
        assert "pip install" in str(caught.value)
        assert str(tmp_path) in str(caught.value)


# ---------------------------------------------------------------------------------------- SQuAD 2.0 and CoQA


def squad2(data, text, logprob):
    task = one("squad2", data)
    *_, nothing = task.samples("test")
    answerable = next(iter(task.samples("test")))
    outputs = [
        Completion(text=text, num_tokens=1, finish="stop"),
        LogProbs(tokens=("x",), logprobs=(logprob,), greedy=False, rule="t"),
    ]
    return [{s.metric: s for s in task.score(sample, outputs)} for sample in (answerable, nothing)]


def test_no_answer_is_an_answer(data):
    for text in ("", " unanswerable", "Unanswerable."):
        known, nothing = squad2(data, text, -1.0)
        assert (known["exact_match"].value, nothing["exact_match"].value) == (0.0, 1.0)
        assert nothing["f1"].value == 1.0
        assert nothing["best_f1"].stats == pytest.approx((math.exp(-1), 1.0, 0.0, 0.0))
    known, nothing = squad2(data, "the 1204", -2.0)
    assert (known["exact_match"].value, nothing["exact_match"].value) == (1.0, 0.0)
    assert known["answerable_f1"].stats == (1.0, 1.0)
    assert known["unanswerable_exact_match"].stats == (0.0, 0.0)


def test_saying_nothing_lands_on_chance(data):
    task = one("squad2", data)
    chance = [task.chance(sample)["exact_match"] for sample in task.samples("test")]

    def silent(request):
        if isinstance(request, ScoreRequest):
            return LogProbs(tokens=("x",), logprobs=(-0.5,), greedy=False, rule="t")
        return empty(request)

    assert mean(take(task, silent)["exact_match"]) == pytest.approx(sum(chance) / len(chance)) == pytest.approx(1 / 3)


def official_best(predictions, scores, probabilities, answerable):
    """find_best_thresh of the official script 2.0, step by step."""
    current = sum(not has for has in answerable)
    best = current
    for i in sorted(range(len(scores)), key=lambda i: probabilities[i]):
        current += scores[i] if answerable[i] else (-1 if predictions[i] else 0)
        best = max(best, current)
    return best / len(scores)


def test_best_threshold_is_the_official_one():
    rng = random.Random(4)
    for _ in range(200):
        n = rng.randrange(1, 12)
        answerable = [rng.random() < 0.5 for _ in range(n)]
        predictions = [rng.choice(["", "x"]) for _ in range(n)]
        scores = [
            rng.random() if has and text else float(not has and not text)
            for has, text in zip(answerable, predictions, strict=True)
        ]
        probabilities = [rng.random() for _ in range(n)]
        rows = [
            (p, s, float(has), float(bool(text)))
            for p, s, has, text in zip(probabilities, scores, answerable, predictions, strict=True)
        ]
        expected = official_best(predictions, scores, probabilities, answerable)
        assert best_score(rows, [1.0] * n) == pytest.approx(expected)
        assert best_score(rows + rows[:1], [1.0] * (n + 1)) == pytest.approx(best_score(rows, [2.0] + [1.0] * (n - 1)))


def test_tied_probabilities_stand_or_fall_together():
    # One right and one wrong answer at the same probability: no threshold keeps only the right one.
    assert best_score([(0.5, 1.0, 1.0, 1.0), (0.5, 0.0, 0.0, 1.0)], [1.0, 1.0]) == 0.5


@pytest.mark.parametrize("name", ["squad", "squad2", "mlqa_zh_de"])
def test_extractive_heads(name, data):
    task = one(name, data)
    *_, sample = task.samples("test")
    [request] = task.views["span"](sample, task.prompt(sample))
    assert request.passage == sample.fields["context"]
    assert request.question == sample.input
    text = sample.targets[0] if sample.targets else ""
    scores = task.score(sample, [Span(start=0, end=1, text=text, no_answer_prob=0.2)])
    assert {score.metric: score.value for score in scores}["exact_match"] == 1.0


def test_coqa_leaves_each_answer_out():
    # Answers a, b, c to the reply "a": without a 0, without b and without c 1.
    same = lambda answer, targets: float(answer in targets)  # noqa: E731
    assert left_out(same, "a", ["a", "b", "c"]) == pytest.approx(2 / 3)
    assert left_out(same, "a", ["a"]) == 1.0
    assert left_out(same, "a", ["a", "a", "b"]) == 1.0


def test_coqa_asks_every_turn_with_the_story_so_far(data):
    first, second = one("coqa", data).samples("test")
    assert first.cluster == second.cluster == "s1"
    assert second.fields["prompt"].endswith("Q: When was it built?\n\nA: 1204\n\nQ: And then?\n\nA:")
    assert second.targets == ("it burned down", "It burned", "burned twice")


# ------------------------------------------------------------------------------------------------ pairs


@pytest.mark.parametrize("name", ["xsum", "samsum"])
def test_a_summary_may_begin_with_a_line_break(name, data):
    task = one(name, data)
    sample = next(iter(task.samples("test")))
    text = f"\n\n{sample.targets[0]}\nMore of it."
    found = {
        score.metric: score for score in task.score(sample, [Completion(text=text, num_tokens=9, finish="length")])
    }
    assert found["rougeL"].value == 1.0
    assert found["rougeL"].answer == sample.targets[0]
    [request] = task.views["generate"](sample, "Summary:")
    assert stop_in(text, request.decoding) == len(f"\n\n{sample.targets[0]}")
    plain = {
        score.metric: score
        for score in task.score(sample, [Completion(text=sample.targets[0], num_tokens=5, finish="stop")])
    }
    assert {name: found[name].stats for name in ("compression", "density")} == {
        name: plain[name].stats for name in ("compression", "density")
    }


def test_any_aligned_files(tmp_path):
    (tmp_path / "a.en").write_text("One mill.\n\nTwo mills.\n", encoding="utf-8")
    (tmp_path / "a.zh").write_text("一座磨坊。\n\n两座磨坊。\n", encoding="utf-8")
    (tmp_path / "b.zh").write_text("一个磨坊。\n\n两个磨坊。\n", encoding="utf-8")
    task = aligned_files("mills", tmp_path / "a.en", [tmp_path / "a.zh", tmp_path / "b.zh"], "en", "zh")
    samples = list(task.samples("test"))
    assert [(sample.id, sample.targets) for sample in samples] == [
        ("1", ("一座磨坊。", "一个磨坊。")),
        ("3", ("两座磨坊。", "两个磨坊。")),
    ]
    assert task.prompt(samples[0]) == "English phrase: One mill.\nChinese phrase:"
    assert task.settings["bleu"].startswith("nrefs:2|case:mixed|eff:no|tok:zh|")
    (tmp_path / "b.zh").write_text("一个磨坊。\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"b\.zh has fewer lines than .*a\.en"):
        list(task.samples("test"))


def test_references_of_a_pair_are_not_its_sources(data):
    there, back = one("multi30k_en_de", data), one("multi30k_de_en", data)
    for one_way, other in zip(there.samples("test"), back.samples("test"), strict=True):
        assert (one_way.input, one_way.targets) == (other.targets[0], (other.input,))


def test_a_cut_gzip_is_named(data, tmp_path):
    make_texts(tmp_path)
    path = tmp_path / "multi30k/test_2016_flickr.de.gz"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match=r"test_2016_flickr\.de\.gz is not a gzip"):
        list(one("multi30k_en_de", tmp_path).samples("test"))


REAL = os.environ.get("LYDITE_DATA")


@pytest.mark.skipif(not REAL, reason="LYDITE_DATA names no data folder")
@pytest.mark.parametrize(
    ("name", "number"), [("squad", 1000), ("xsum", 700), ("multi30k_en_de", 1000), ("multi30k_fr_en", 1000)]
)
def test_real_data(name, number):
    task = prompted(one(name, Path(REAL)), shots=1 if name != "xsum" else 0)
    samples = list(task.samples("test"))
    assert len(samples) == len({sample.id for sample in samples}) == number
    for sample in samples[:20]:
        assert task.views["generate"](sample, task.prompt(sample))
        perfect = Completion(text=sample.targets[0], num_tokens=1, finish="stop")
        best = {score.metric: score.value for score in task.score(sample, [perfect])}
        assert best[task.metrics[0].name] == pytest.approx(1.0)
