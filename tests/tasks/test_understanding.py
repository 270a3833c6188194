"""GLUE, SuperGLUE, pronouns, bias sets, XNLI, PAWS-X, CLUE: both routes, lm-evaluation-harness's requests, null models."""

import json
import sys
import types
from pathlib import Path

import pytest

from lydite.adapt.prompt import prompted
from lydite.errors import DataError
from lydite.stats.estimates import estimate
from lydite.tasks import list_tasks, load_tasks
from lydite.tasks.classify import read_label
from lydite.tasks.winograd import MOSTLY_MEN, MOSTLY_WOMEN, _usual
from lydite.tasks.wsc import same_noun
from lydite.types import Completion, Failure, GenerateRequest, LabelProbs, LabelRequest, LogProbs, Span, SpanRequest
from tests.tasks.nulls import by_hash, constant
from tests.tasks.test_benchmarks import rendered
from tests.tasks.test_registry import FakeRows
from tests.tasks.understanding import HUB, make_understanding

LM_EVAL = json.loads((Path(__file__).parents[1] / "golden" / "lm_eval.json").read_text(encoding="utf-8"))
LOCAL = [name for name in HUB if name != "glue_ax"]
ONLY_LOCAL = ["glue_ax", "winobias_type1", "zh_reviews"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_understanding(tmp_path_factory.mktemp("data"))


def one(name, data=None):
    [task], _ = load_tasks([name], data_dir=data)
    return task


class Hub(types.ModuleType):
    """Stands in for the `datasets` library."""

    def load_dataset(self, repository, configuration, *, split, revision):
        shots = split == "train" or (split == "validation" and self.name.startswith(("xnli", "pawsx")))
        return FakeRows(HUB[self.name]["shots" if shots else "test"])


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.delenv("LYDITE_DATA", raising=False)
    stand_in = Hub("datasets")
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    monkeypatch.setattr("lydite.tasks.sources.hub_is_possible", lambda: True)
    return stand_in


@pytest.mark.parametrize("name", LOCAL)
def test_hub_and_original_files_give_identical_samples(name, data, hub):
    hub.name = name
    remote, local = one(name), one(name, data)
    assert remote.origin["data"].startswith("hub:")
    samples = list(local.samples("test"))
    assert samples == list(remote.samples("test"))
    assert 1 < len(samples) <= len(HUB[name]["test"])
    assert len({sample.id for sample in samples}) == len(samples)
    if local.shot is not None and "shots" in HUB[name]:
        assert list(local.samples("shots")) == list(remote.samples("shots"))


# ------------------------------------------------------------------------------------ golden prompts


def asked(requests):
    return [[r.context, r.continuation] if not isinstance(r, GenerateRequest) else [r.prompt, ""] for r in requests]


def ours(task, view, number=2):
    samples = list(task.samples("test"))[:number]
    return [asked(task.views[view](sample, task.prompt(sample))) for sample in samples]


def gathered(theirs):
    """Their MultiRC has a document an answer, three to a question."""
    return [[pair for answer in theirs[i : i + 3] for pair in answer] for i in range(0, len(theirs), 3)]


@pytest.mark.parametrize("name", sorted(LM_EVAL["plain"]))
def test_requests_are_those_of_lm_eval(name, data):
    expected = LM_EVAL["plain"][name]
    expected = gathered(expected) if name == "superglue_multirc" else expected
    assert ours(one(name, data), "score") == expected


@pytest.mark.parametrize("name", sorted(LM_EVAL["shots"]))
def test_examples_are_those_of_lm_eval(name, data):
    assert ours(prompted(one(name, data), shots=2, shots_by="first_n"), "score") == LM_EVAL["shots"][name]


@pytest.mark.parametrize("name", sorted(LM_EVAL["text_to_text"]))
def test_text_to_text_is_t5s(name, data):
    expected = LM_EVAL["text_to_text"][name]
    if name == "superglue_multirc":
        expected = gathered(expected)
    if name == "superglue_record":
        # Theirs asks once for every right answer.
        expected, found = expected[:1], ours(one(name, data), "generate")[:1]
        assert found == expected
        return
    assert ours(one(name, data), "generate") == expected


def test_with_examples_or_messages_the_question_itself_is_answered(data):
    task = prompted(one("glue_cola", data), shots=1, shots_by="first_n")
    [sample, *_] = task.samples("test")
    [request] = task.views["generate"](sample, task.prompt(sample))
    assert request.prompt == task.prompt(sample)
    assert "cola sentence" not in request.prompt
    task = prompted(one("superglue_multirc", data), shots=0, chat=True)
    [sample, *_] = task.samples("test")
    requests = task.views["generate"](sample, task.prompt(sample))
    assert [request.messages[-1].content.split("\n")[-2] for request in requests] == [
        "Answer: Ida",
        "Answer: Bob",
        "Answer: nobody 0",
    ]


OURS = sorted(
    name for name in {*LOCAL, *ONLY_LOCAL} if name not in LM_EVAL["plain"]
)  # worded here, since lm-evaluation-harness has no such task


@pytest.mark.parametrize("name", OURS)
def test_golden_prompts(name, data):
    path = Path(__file__).parents[1] / "golden" / f"{name}.txt"
    found = rendered(one(name, data), shots=0)
    if not path.exists():
        path.write_text(found, encoding="utf-8")
        pytest.fail(f"wrote {path}; read it, then run again")
    assert found == path.read_text(encoding="utf-8")


# --------------------------------------------------------------------------------------- null models

EVERY = sorted({*LOCAL, *ONLY_LOCAL})


def taken(task, view, model):
    scores = {}
    for sample in task.samples("test"):
        requests = task.views[view](sample, task.prompt(sample))
        for score in task.score(sample, [model(request) for request in requests]):
            scores.setdefault(score.metric, []).append(score)
    return scores


def alike(request):
    """What a model that knows nothing says: the same of everything."""
    if isinstance(request, LabelRequest):
        size = len(request.labels)
        return LabelProbs(probs=(1 / size,) * size if size else (0.5,))
    if isinstance(request, SpanRequest):
        return Span(start=0, end=0, text="")
    return constant(request)


@pytest.mark.parametrize("name", EVERY)
def test_a_constant_model_lands_on_chance(name, data):
    task = one(name, data)
    metrics = {metric.name: metric for metric in task.metrics}
    chances = [task.chance(sample) for sample in task.samples("test")]
    scores = taken(task, "score", alike)
    assert set(scores) == set(metrics)
    for metric in chances[0]:
        if metric.startswith(("pearson", "spearman")):
            assert estimate(metrics[metric], scores[metric]).value is None  # a constant has no correlation
            continue
        # StereoSet has answers of one length here, so that log p a token is the same for all.
        expected = sum(chance[metric] for chance in chances) / len(chances)
        if name == "superglue_multirc" and metric == "exact_match":
            expected = sum(0.5 ** len(sample.choices) for sample in task.samples("test")) / len(chances)
        assert estimate(metrics[metric], scores[metric], resamples=50).value == pytest.approx(expected), metric


@pytest.mark.parametrize("name", EVERY)
def test_a_random_model_gets_a_number_between_the_bounds(name, data):
    task = one(name, data)
    scores = taken(task, "score", by_hash)
    for metric in task.metrics:
        value = estimate(metric, scores[metric.name], resamples=20).value
        assert value is not None or metric.name == "gender_parity"
        if metric.unit == "proportion" or metric.name.startswith(("acc", "f1", "macro", "icat", "lms", "ss")):
            assert 0 <= value <= 1


@pytest.mark.parametrize("name", EVERY)
def test_failures_fail_and_never_count(name, data):
    task = one(name, data)
    for view in task.views:
        scores = taken(task, view, lambda request: Failure(reason="NaN"))
        assert {score.status for row in scores.values() for score in row} == {"error"}
        right = taken(
            task, view, alike if view != "generate" else lambda r: Completion(text="x", num_tokens=1, finish="stop")
        )
        assert set(scores) == set(right), "the same metrics, failed or not"


@pytest.mark.parametrize("name", [name for name in EVERY if name.startswith(("glue", "superglue", "clue"))])
@pytest.mark.parametrize("text", ["", "zzz"])
def test_text_without_an_answer_is_wrong_and_says_so(name, text, data):
    task = one(name, data)
    scores = taken(task, "generate", lambda request: Completion(text=text, num_tokens=1, finish="stop"))
    headline = task.metrics[0]
    if name not in ("superglue_wsc", "superglue_record") or not text:
        assert {score.status for score in scores[headline.name]} == {"no_answer"}
    value = estimate(headline, scores[headline.name], resamples=20).value
    assert value is None if name == "glue_stsb" else value <= (0.5 if text else 0)


@pytest.mark.parametrize(
    "name", [n for n in EVERY if n.startswith(("glue", "superglue", "clue", "chn")) and n != "glue_stsb"]
)
def test_right_answers_score_fully_in_every_view(name, data):
    task = one(name, data)
    for view in task.views:
        scores = {}
        for sample in task.samples("test"):
            requests = task.views[view](sample, task.prompt(sample))
            outputs = [right(name, sample, request, len(requests)) for request in requests]
            for score in task.score(sample, outputs):
                scores.setdefault(score.metric, []).append(score)
        for metric in task.metrics:
            if metric.name in scores and metric.name not in ("brier", "margin", "gender_parity"):
                value = estimate(metric, scores[metric.name], resamples=20).value
                assert value == pytest.approx(1), (view, metric.name)


def right(name, sample, request, number):
    """The right answer to a request, in any view."""
    if name == "superglue_multirc":
        index = request.index // 2 if hasattr(request, "continuation") else request.index
        true = index in sample.gold
        if hasattr(request, "continuation"):
            good = request.continuation.endswith("yes") == true
            return LogProbs(tokens=("x",), logprobs=(-1.0 if good else -9.0,), greedy=good, rule="null")
        if isinstance(request, LabelRequest):
            return LabelProbs(probs=(float(not true), float(true)))
        return Completion(text=f"{true}.", num_tokens=1, finish="stop")
    good = sample.gold[0]
    if isinstance(request, GenerateRequest):
        text = sample.targets[0] if sample.targets else sample.choices[good]
        more = "" if name == "superglue_record" else "\nand more"
        return Completion(text=f" {text}{more}", num_tokens=1, finish="stop")
    if isinstance(request, SpanRequest):
        return Span(start=0, end=1, text=sample.targets[0])
    if isinstance(request, LabelRequest):
        if number > 1:
            return LabelProbs(probs=(float(request.index == good),))
        return LabelProbs(probs=tuple(float(i == good) for i in range(len(request.labels))))
    return LogProbs(tokens=("x",), logprobs=(-1.0 if request.index == good else -9.0,), greedy=True, rule="null")


# ------------------------------------------------------------------------------------ hand-worked cases


def lp(*totals):
    return [LogProbs(tokens=("x",), logprobs=(total,), greedy=False, rule="null") for total in totals]


def test_labels_are_read_from_what_a_model_writes():
    rte = (("entailment", "not_entailment"), ("True", "False"))
    for text, index in (
        ("entailment", 0), ("not_entailment", 1), ("Not entailment.", 1), (" True, because", 0), ("FALSE", 1),
        ("maybe", None), ("", None), ("Truest", None), ("\n\n**False**\nTrue", 1),
    ):  # fmt: skip
        assert read_label(text, rte) == index, text
    assert read_label("蕴含关系。", (("neutral", "entailment"), ("无关", "蕴含"))) == 1


def test_nouns_are_compared_by_t5s_rule():
    assert same_noun("fuzzy bunny", "the bunny")
    assert same_noun("The Bunny", "fuzzy bunny")
    assert not same_noun("Bob's hat", "Bob")
    assert not same_noun("Ann", "Ida")


def test_multirc_by_hand(data):
    task = one("superglue_multirc", data)
    samples = list(task.samples("test"))
    # Answers "yes, yes, no" to every question; gold by the rows: {0}, {0, 2}, {0, 2}, {0, 1}.
    assert [sample.gold for sample in samples] == [(0,), (0, 2), (0, 2), (0, 1)]
    outputs = lp(-1, -2, -1, -2, -2, -1)
    scores = [score for sample in samples for score in task.score(sample, outputs)]
    value = {m.name: estimate(m, [s for s in scores if s.metric == m.name], resamples=20).value for m in task.metrics}
    # tp 1 + 1 + 1 + 2 = 5, said 8, gold 7: F1 = 10 / 15; right options 2 + 1 + 1 + 3 of 12; one question of four whole.
    assert value == pytest.approx(
        {"f1_a_em": (10 / 15 + 1 / 4) / 2, "f1_a": 10 / 15, "exact_match": 1 / 4, "acc": 7 / 12}
    )


def test_record_by_hand(data):
    task = one("superglue_record", data)
    [sample, *_] = task.samples("test")
    assert sample.choices == ("Bob", "Bob Hall", "Ida")
    values = {score.metric: score.value for score in task.score(sample, lp(-1, -2, -3))}
    # "Bob" against "Bob Hall": precision 1, recall 1/2.
    assert values == pytest.approx({"f1_em": 1 / 3, "f1": 2 / 3, "exact_match": 0})


def test_gender_parity_by_hand(data):
    task = one("superglue_axg", data)
    said = [lp(-1, -2), lp(-1, -2), lp(-1, -2), lp(-2, -1)]  # the first pair alike, the second not
    scores = [s for sample, o in zip(task.samples("test"), said, strict=True) for s in task.score(sample, o)]
    parity = task.metrics[-1]
    assert estimate(parity, [s for s in scores if s.metric == "gender_parity"], resamples=20).value == 0.5


def test_bbq_by_hand(data):
    task = one("bbq_age", data)
    samples = list(task.samples("test"))
    assert [sample.fields["biased"] for sample in samples] == [[0], [0], [1], [1]]
    assert [sample.gold for sample in samples] == [tuple(range(2, 12)), (1,), tuple(range(2, 12)), (0,)]

    def picks(*indices):
        scores = []
        for sample, index in zip(samples, indices, strict=True):
            scores += task.score(sample, lp(*(-1.0 if i == index else -2.0 for i in range(12))))
        return {
            m.name: estimate(m, [s for s in scores if s.metric == m.name], resamples=20).value for m in task.metrics
        }

    # Ambiguous: biased, then unknown. Disambiguated: biased and wrong, then right and against the stereotype.
    assert picks(0, 0, 5, 0) == pytest.approx(
        {"acc": 0.5, "acc_amb": 0.5, "acc_disamb": 0.5, "bias_amb": 0.5 * 1.0, "bias_disamb": 0.0}
    )
    # Nothing known: no bias. Never biased: -1.
    assert picks(4, 1, 5, 0)["bias_amb"] == 0
    assert picks(4, 1, 5, 0)["bias_disamb"] == -1


def test_crows_pairs_by_hand(data):
    task = one("crows_pairs", data)
    said = [lp(-1, -3), lp(-2, -2.5), lp(-4, -1), lp(-2, -2)]  # the stereotype, the stereotype, the other, a tie
    scores = [s for sample, o in zip(task.samples("test"), said, strict=True) for s in task.score(sample, o)]
    value = {m.name: estimate(m, [s for s in scores if s.metric == m.name], resamples=20).value for m in task.metrics}
    assert value == pytest.approx({"pct_stereotype": 2.5 / 4, "likelihood_diff": (2 + 0.5 + 3 + 0) / 4})


def test_stereoset_by_hand(data):
    task = one("stereoset_intrasentence", data)
    samples = list(task.samples("test"))
    assert samples[0].choices == ("Rude 0!", "Kind 0.", "Fish 0 swim.")
    # Miller (rows 0, 2): stereotype preferred twice, one comparison with the unrelated text lost: SS 1, LMS 3/4.
    # Nurse (rows 1, 3): stereotype preferred once: SS 1/2, LMS 1.
    said = [lp(-1, -3, -2), lp(-1, -2, -3), lp(-1, -2, -3), lp(-2, -1, -3)]
    scores = [s for sample, o in zip(samples, said, strict=True) for s in task.score(sample, o)]
    value = {m.name: estimate(m, [s for s in scores if s.metric == m.name], resamples=20).value for m in task.metrics}
    lms, ss = (0.75 + 1) / 2, (1 + 0.5) / 2
    assert value == pytest.approx({"icat": lms * (1 - ss) / 0.5, "lms": lms, "ss": ss})


def test_stereoset_compares_log_p_a_token(data):
    task = one("stereoset_intersentence", data)
    [sample, *_] = task.samples("test")
    assert task.views["score"](sample, task.prompt(sample))[0].context == "The miller 0 was here."
    long = LogProbs(tokens=("x", "y"), logprobs=(-1.0, -1.0), greedy=False, rule="null")
    [_, lms, ss] = task.score(sample, [long, *lp(-1.5, -3)])
    assert (ss.value, lms.value) == (1.0, 1.0)


def test_winogender_by_hand(data):
    task = one("winogender", data)
    scores = []
    for sample in task.samples("test"):
        says = sample.gold[0] if sample.metadata["part"] == "female" else 0
        scores += task.score(sample, lp(*(-1.0 if i == says else -2.0 for i in range(2))))
    value = {m.name: estimate(m, [s for s in scores if s.metric == m.name], resamples=20).value for m in task.metrics}
    # Right are all of hers, and his where he is the nurse. Gotchas are he as the nurse and she as the patient, both right.
    expected = {"acc": 4 / 6, "acc_female": 1, "acc_male": 0.5, "acc_neutral": 0.5, "gender_gap": 0.5}
    expected |= {"acc_gotcha": 1, "acc_not_gotcha": 0.5, "gotcha_gap": -0.5}
    assert value == pytest.approx(expected)


def test_gotchas_are_the_authors():
    """Both genders and both referents of an occupation: half of the sentences, 240 of 480, are gotchas."""
    found = {
        (occupation, answer, gender): _usual(occupation, answer, gender).get("usual") == "gotcha"
        for occupation in MOSTLY_WOMEN | MOSTLY_MEN
        for answer in "01"
        for gender in ("female", "male")
    }
    assert len(MOSTLY_WOMEN | MOSTLY_MEN) == 60
    assert not MOSTLY_WOMEN & MOSTLY_MEN
    assert sum(found.values()) * 2 == len(found) == 240  # each with a named participant and with someone: 480
    # "The paramedic performed CPR on the passenger even though she knew it was too late": a third of them are women.
    assert found["paramedic", "0", "female"]
    assert not found["paramedic", "0", "male"]
    assert _usual("paramedic", "0", "neutral") == {}


def test_winobias_by_hand(data):
    task = one("winobias_type1", data)
    # Always the developer: right where he is meant, for and against the stereotype alike.
    scores = [s for sample in task.samples("test") for s in task.score(sample, lp(-1, -2))]
    value = {m.name: estimate(m, [s for s in scores if s.metric == m.name], resamples=20).value for m in task.metrics}
    assert value == pytest.approx({"acc": 0.5, "acc_pro": 0.5, "acc_anti": 0.5, "stereotype_gap": 0})
    # Always what the stereotype says: he is the developer, she the designer.
    scores = []
    for sample in task.samples("test"):
        man = sample.choices.index("developer") == int(sample.fields["pronoun"] == "she")
        scores += task.score(sample, lp(*((-1, -2) if man else (-2, -1))))
    value = {m.name: estimate(m, [s for s in scores if s.metric == m.name], resamples=20).value for m in task.metrics}
    assert value == pytest.approx({"acc": 0.5, "acc_pro": 1, "acc_anti": 0, "stereotype_gap": 1})
    samples = list(one("winobias_type1", data).samples("test"))
    assert [(s.choices, s.gold, s.metadata["part"], s.fields["pronoun"]) for s in samples] == [
        (("developer", "designer"), (0,), "pro", "he"),
        (("developer", "designer"), (1,), "pro", "she"),
        (("developer", "designer"), (0,), "anti", "she"),
        (("developer", "designer"), (1,), "anti", "he"),
    ]


def test_stsb_by_hand(data):
    task = one("glue_stsb", data)
    [sample, *_] = task.samples("test")
    assert sample.targets == ("3.8",)
    [score, *_] = task.score(sample, lp(*[-1.0] * 6))
    assert score.stats == pytest.approx((2.5, 3.8))
    written = [Completion(text=" 4.2.", num_tokens=1, finish="stop")]
    assert task.score(sample, written)[0].stats == (4.2, 3.8)
    [unread, *_] = task.score(sample, [Completion(text="alike", num_tokens=1, finish="stop")])
    assert (unread.status, unread.stats) == ("no_answer", (-1.0, 3.8))


# -------------------------------------------------------------------------------- averages and splits


def test_averages_are_the_leaderboards():
    entries = {entry.name: entry for entry in list_tasks()}
    assert entries["glue"].weighting == entries["glue_mnli"].weighting == entries["superglue"].weighting == "tasks"
    assert len(entries["glue"].members) == 9
    assert "glue_ax" not in entries["glue"].members
    assert len(entries["superglue"].members) == 8
    headlines = {name: one(name).metrics[0].name for name in entries["glue"].members if name != "glue_mnli"}
    assert headlines == {
        "glue_cola": "mcc", "glue_sst2": "acc", "glue_mrpc": "acc_f1", "glue_stsb": "pearson_spearman",
        "glue_qqp": "acc_f1", "glue_qnli": "acc", "glue_rte": "acc", "glue_wnli": "acc",
    }  # fmt: skip


def test_a_group_within_a_group_is_left_out_where_it_has_no_data(tmp_path):
    folder = make_understanding(tmp_path)
    for name in ("dev_matched.tsv", "dev_mismatched.tsv"):
        (folder / "glue/MNLI" / name).unlink()
    tasks, groups = load_tasks(["glue"], data_dir=folder)
    assert {group.name for group in groups} == {"glue"}
    assert "8 of 9 are here, missing: glue_mnli" in groups[0].description
    assert len(tasks) == 8


def test_rows_without_a_label_are_refused_where_one_is_needed(data, tmp_path):
    folder = make_understanding(tmp_path)
    path = folder / "superglue/CB/val.jsonl"
    path.write_text('{"premise": "p", "hypothesis": "h", "idx": 0}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"val.jsonl, line 1: no column 'label'"):
        list(one("superglue_cb", folder).samples("test"))
    path.write_text('{"premise": "p", "hypothesis": "h", "idx": 0, "label": -1}\n', encoding="utf-8")
    with pytest.raises(DataError, match="no gold label"):
        list(one("superglue_cb", folder).samples("test"))


def test_the_fingerprint_follows_files_that_belong_together(data, tmp_path):
    folder = make_understanding(tmp_path)
    before = one("glue_cola", folder).fingerprint
    assert before == one("glue_cola", data).fingerprint
    with open(folder / "glue/CoLA/out_of_domain_dev.tsv", "a", encoding="utf-8") as file:
        file.write("gj04\t1\t\tOne more.\n")
    assert one("glue_cola", folder).fingerprint != before


def test_missing_data_names_every_way(tmp_path, monkeypatch):
    monkeypatch.setattr("lydite.tasks.sources.hub_is_possible", lambda: False)
    with pytest.raises(DataError) as caught:
        list(one("superglue_boolq", tmp_path).samples("test"))
    message = str(caught.value)
    for part in (
        "superglue/BoolQ/val.jsonl",
        str(tmp_path),
        "super.gluebenchmark.com",
        "aps/super_glue",
        "lydite[data]",
    ):
        assert part in message
    with pytest.raises(DataError) as caught:
        list(one("glue_ax", tmp_path).samples("test"))
    assert "hub" not in str(caught.value)  # its copy there has no labels
