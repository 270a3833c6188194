"""Every family of tasks, taken by models that know nothing: they must land on chance, or on failed."""

import math
import random

import pytest

from lydite.tasks.choice import choice_task
from lydite.tasks.generate import generation_task, grader
from lydite.tasks.heldout import heldout_task
from lydite.tasks.lastword import last_word_task
from lydite.tasks.pairs import pairs_task
from lydite.types import Completion, Decoding, Failure, LogProbs, Message, Sample, ScoreRequest
from tests.tasks.nulls import broken, by_hash, constant, echo, empty, mean, per_character, take

NUMBER = 2000
WORDS = ("pear", "watermelon", "fig", "apricot")


def questions(split):
    """Four choices of very different lengths; the gold one is always the first."""
    for i in range(NUMBER):
        yield Sample(id=str(i), input=f"question {i}", choices=WORDS, gold=(0,))


def pairs(split):
    for i in range(NUMBER):
        yield Sample(id=str(i), input="", choices=(f"good {i}", f"bad one {i}"), gold=(0,))


def documents(split):
    for i in range(5):
        yield Sample(id=str(i), input="one two three. " * (i + 1))


def passages(split):
    for i in range(NUMBER):
        yield Sample(id=str(i), input=f"passage {i} ends in a", targets=("word",))


def problems(split):
    for i in range(20):
        yield Sample(id=str(i), input=f"what is {i}", targets=(f"answer {i + 100}",))


def question(sample):
    return f"Q: {sample.input}\nA:"


FULL = choice_task("full", questions, question)
LETTERS = choice_task("letters", questions, question, letters=True)
NEUTRAL = choice_task("neutral", questions, question, neutral="Q: ?\nA:", description="Choose.\n")
PAIRS = pairs_task("pairs", pairs)
LAST = last_word_task("last", passages)
HELD = heldout_task("held", documents)
WRITE = generation_task(
    "write",
    problems,
    question,
    [grader("exact_match", ["last_number"]), grader("f1"), grader("chrf")],
    Decoding(max_new_tokens=8),
)
ALL = (FULL, LETTERS, NEUTRAL, PAIRS, LAST, HELD, WRITE)


def chance(task, metric):
    values = [task.chance(sample)[metric] for sample in task.samples("test")]
    return sum(values) / len(values)


@pytest.mark.parametrize("task", [FULL, LETTERS, NEUTRAL, PAIRS], ids=lambda task: task.name)
def test_a_constant_model_lands_exactly_on_chance(task):
    scores = take(task, constant)
    assert mean(scores["acc"]) == pytest.approx(chance(task, "acc"), abs=1e-12)
    assert all(score.status == "ok" for row in scores.values() for score in row)
    if task is not PAIRS:
        assert mean(scores["brier"]) == pytest.approx(chance(task, "brier"), abs=1e-12)


def test_corrections_for_length_see_a_constant_rate_as_a_tie():
    scores = take(FULL, per_character)
    assert mean(scores["acc_norm"]) == pytest.approx(0.25, abs=1e-12)
    assert mean(scores["acc_bytes"]) == pytest.approx(0.25, abs=1e-12)
    # Without the correction the shortest choice wins, which is never the gold one here.
    assert mean(scores["acc"]) == 0.0


@pytest.mark.parametrize("task", [FULL, LETTERS, NEUTRAL, PAIRS], ids=lambda task: task.name)
def test_a_random_model_is_near_chance(task):
    expected = chance(task, "acc")
    error = math.sqrt(expected * (1 - expected) / NUMBER)
    assert abs(mean(take(task, by_hash)["acc"]) - expected) < 4 * error


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_a_broken_model_lands_on_failed_and_never_on_a_number(task):
    scores = take(task, broken)
    assert set(scores) == {metric.name for metric in task.metrics}
    for row in scores.values():
        assert all((score.value, score.status, score.note) == (None, "error", "NaN") for score in row)


def test_one_failed_choice_fails_the_sample():
    [sample] = list(questions("test"))[:1]
    outputs = [*[constant(r) for r in FULL.views["score"](sample, "")][:3], Failure(reason="too long")]
    assert {score.status for score in FULL.score(sample, outputs)} == {"error"}


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_one_score_for_each_metric(task):
    scores = take(task, constant)
    assert list(scores) == [metric.name for metric in task.metrics]


def test_the_place_of_the_good_sentence_does_not_matter():
    def favours_good(request):
        return LogProbs(
            tokens=("x",), logprobs=(-1.0 if "good" in request.continuation else -2.0,), greedy=True, rule="null"
        )

    turned = pairs_task(
        "turned",
        lambda split: (Sample(id=s.id, choices=s.choices[::-1], gold=(1,)) for s in pairs(split)),
    )
    assert mean(take(PAIRS, favours_good)["acc"]) == mean(take(turned, favours_good)["acc"]) == 1.0


def test_a_neutral_question_takes_the_prior_of_choices_away():
    def likes_figs(request):
        """Always finds figs likely, and the gold pear a little more after the real question than after none."""
        value = {" fig": -1.0, " pear": -5.0}.get(request.continuation, -6.0)
        value += 0.5 * ("question" in request.context and request.continuation == " pear")
        return LogProbs(tokens=("x",), logprobs=(value,), greedy=False, rule="null")

    scores = take(NEUTRAL, likes_figs)
    assert mean(scores["acc"]) == 0.0
    assert mean(scores["acc_pmi"]) == 1.0
    assert mean(take(NEUTRAL, constant)["acc_pmi"]) == pytest.approx(chance(NEUTRAL, "acc_pmi"))
    [sample] = list(questions("test"))[:1]
    requests = NEUTRAL.views["score"](sample, NEUTRAL.prompt(sample))
    assert [r.context for r in requests] == ["Choose.\nQ: question 0\nA:"] * 4 + ["Choose.\nQ: ?\nA:"] * 4
    assert [r.continuation for r in requests[:4]] == [r.continuation for r in requests[4:]]
    assert [r.index for r in requests] == list(range(8))
    chat = NEUTRAL.views["score"](sample, (Message(role="user", content="Q: question 0\nA:"),))
    assert [m.content for r in chat[4:5] for m in r.messages] == ["Q: ?\nA:"]


def test_pairs_are_scored_whole_from_the_beginning():
    [sample] = list(pairs("test"))[:1]
    requests = PAIRS.views["score"](sample, PAIRS.prompt(sample))
    assert [(r.context, r.continuation) for r in requests] == [("", "good 0"), ("", "bad one 0")]


def test_letters_can_be_generated():
    scores = take(LETTERS, constant, "generate")
    assert mean(scores["acc"]) == 1.0  # it says A, and A is right
    assert [score.answer for score in scores["acc"]][:1] == ["A"]
    silent = take(LETTERS, empty, "generate")["acc"]
    assert {(score.value, score.status) for score in silent} == {(0.0, "no_answer")}
    assert abs(mean(take(LETTERS, by_hash, "generate")["acc"]) - 0.2) < 0.05  # one of A, B, C, D, 12
    assert {score.status for score in take(LETTERS, broken, "generate")["acc"]} == {"error"}
    assert "generate" not in FULL.views


def test_last_words():
    scores = take(LAST, constant)
    assert mean(scores["acc"]) == 0.0
    assert scores["perplexity"][0].value == pytest.approx(math.exp(7))
    certain = take(LAST, lambda r: LogProbs(tokens=("w", "d"), logprobs=(-0.1, -0.2), greedy=True, rule="null"))
    assert mean(certain["acc"]) == 1.0
    assert certain["perplexity"][0].value == pytest.approx(math.exp(0.3))
    assert LAST.chance(next(iter(passages("test")))) == {}


def test_heldout_text_counts_bytes_and_words():
    def two_bits_a_byte(request):
        assert request.window == "max_context"
        nats = 2 * math.log(2) * len(request.continuation.encode())
        return LogProbs(tokens=("x",), logprobs=(-nats,), greedy=False, rule="null")

    scores = take(HELD, two_bits_a_byte)
    assert [score.value for score in scores["bits_per_byte"]] == pytest.approx([2.0] * 5)
    assert [score.value for score in scores["byte_perplexity"]] == pytest.approx([4.0] * 5)
    # "one two three. " has 3 words and, after its last space, an empty piece that counts.
    assert scores["word_perplexity"][0].stats[1] == 4.0


@pytest.mark.parametrize("model", [empty, echo], ids=["empty", "echo"])
def test_writing_nothing_or_the_prompt_scores_nothing(model):
    scores = take(WRITE, model)
    assert mean(scores["exact_match"]) == 0.0
    if model is empty:
        assert {score.status for row in scores.values() for score in row} == {"no_answer"}
        assert mean(scores["f1"]) == mean(scores["chrf"]) == 0.0
    else:
        assert {score.note for row in scores.values() for score in row} == {"cut at max_new_tokens"}


def test_right_answers_score_fully():
    def right(request):
        number = int(request.prompt.split("what is ")[1].split("\n")[0]) + 100
        return Completion(text=f" answer {number}", num_tokens=3, finish="stop")

    scores = take(WRITE, right)
    assert [mean(scores[name]) for name in ("exact_match", "f1", "chrf")] == pytest.approx([1.0, 1.0, 1.0])
    assert scores["exact_match"][0].answer == "100"


def test_after_a_chat_template_answers_lose_their_leading_space():
    [sample] = list(questions("test"))[:1]
    messages = (Message(role="user", content="hello"),)
    requests = FULL.views["score"](sample, messages)
    assert all(isinstance(r, ScoreRequest) and r.messages == messages and r.context == "" for r in requests)
    assert [r.continuation for r in requests] == list(WORDS)


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_scoring_needs_nothing_but_the_sample_and_its_outputs(task):
    import msgspec

    [sample] = list(task.samples("test"))[:1]
    outputs = [by_hash(request) for request in task.views[next(iter(task.views))](sample, task.prompt(sample))]
    stored = msgspec.json.decode(msgspec.json.encode(sample), type=Sample)
    random.seed(0)
    assert task.score(stored, outputs) == task.score(sample, outputs)


def test_corrections_for_length_divide_by_characters_and_by_bytes():
    """log-probabilities for which the raw value, a character and a byte each prefer another choice."""
    sample = Sample(id="1", choices=("abcd", "今天天", "xy"), gold=(0,))
    task = choice_task("lengths", lambda split: [sample], question)
    totals = {"abcd": -4.4, "今天天": -3.2, "xy": -2.3}
    # a character: -1.10, -1.07, -1.15; a byte: -1.10, -0.36, -1.15; and 2.3 is the smallest of all.
    outputs = [LogProbs(tokens=("x",), logprobs=(totals[c],), greedy=False, rule="null") for c in sample.choices]
    answers = {score.metric: score.answer for score in task.score(sample, outputs)}
    assert (answers["acc"], answers["acc_norm"], answers["acc_bytes"]) == ("xy", "今天天", "今天天")
    # Over characters alone 3.2 / 3 beats 4.4 / 4 by 0.03: one character more on either side would turn it round.
    totals["今天天"] = -3.31
    outputs = [LogProbs(tokens=("x",), logprobs=(totals[c],), greedy=False, rule="null") for c in sample.choices]
    answers = {score.metric: score.answer for score in task.score(sample, outputs)}
    assert (answers["acc_norm"], answers["acc_bytes"]) == ("abcd", "今天天")


def test_targets_that_carry_their_space_begin_a_turn_without_it():
    sample = Sample(id="1", input="He opened the", targets=(" door",))
    task = last_word_task("cloze", lambda split: [sample], lead="")
    [plain] = task.views["score"](sample, task.prompt(sample))
    assert (plain.context, plain.continuation) == ("He opened the", " door")
    [turn] = task.views["score"](sample, (Message(role="user", content="He opened the"),))
    assert turn.continuation == "door"
