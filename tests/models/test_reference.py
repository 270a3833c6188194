"""Null models: what they promise about chance, length and failure."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from lydite.errors import ModelError
from lydite.models import load_model
from lydite.models.reference import ScriptedModel, random_model, uniform_model
from lydite.types import (
    Completion,
    Decoding,
    Failure,
    GenerateRequest,
    LabelProbs,
    LabelRequest,
    LogProbs,
    Message,
    ScoreRequest,
    Span,
    SpanRequest,
)

SCORE = ScoreRequest(sample_id="a", index=0, context="Two and two is", continuation=" four")
GENERATE = GenerateRequest(sample_id="a", index=0, prompt="Once upon")
LABEL = LabelRequest(sample_id="a", index=0, text="good", labels=("yes", "no", "maybe"))
SPAN = SpanRequest(sample_id="a", index=0, question="Who?", passage="Anna saw Ben.")
ALL = [SCORE, GENERATE, LABEL, SPAN]


def outputs(model, requests):
    answers = dict(model.answer(requests))
    assert sorted(answers) == list(range(len(requests)))
    return [answers[i] for i in range(len(requests))]


@pytest.mark.parametrize("spec", ["uniform", "random", "null:uniform", "null:random"])
def test_every_kind_is_answered(spec):
    model = load_model(spec, settings={"batch_tokens": 12})  # a setting of the models beside it
    assert [type(output) for output in outputs(model, ALL)] == [LogProbs, Completion, LabelProbs, Span]
    assert set(model.info.can) == {"score", "generate", "label", "span"}
    assert model.info.source == f"null:{model.info.name}"
    assert model.usage.tokens_requested == len("Two and two is four" + "Once upon" + "good" + "Who?Anna saw Ben.")


def test_uniform_costs_eight_bits_a_byte():
    text = " The café 今天 🙂"
    (output,) = outputs(uniform_model(), [ScoreRequest(sample_id="a", index=0, continuation=text)])
    assert output.total == pytest.approx(-len(text.encode()) * 8 * math.log(2), rel=1e-12)
    assert "".join(output.tokens) == text
    assert not output.greedy
    assert sum(math.exp(-math.log(256)) for _ in range(256)) == pytest.approx(1)


def test_uniform_elsewhere():
    _, text, label, span = outputs(uniform_model(), ALL)
    assert (text.text, text.num_tokens) == ("", 0)
    assert label.probs == (1 / 3,) * 3
    assert span.text == SPAN.passage[span.start : span.end] == SPAN.passage


def choices(number, num_choices=4):
    for i in range(number):
        for j in range(num_choices):
            # The right choice is always j == 0 and always the longest: neither may help.
            text = " word" * (10 if j == 0 else 1 + j)
            yield ScoreRequest(sample_id=str(i), index=j, context=f"question {i}", continuation=f"{text} {i}")


def test_random_choices_land_on_chance_whatever_their_length():
    number = 4000
    totals = np.array([output.total for output in outputs(random_model(), list(choices(number)))]).reshape(number, 4)
    shares = np.bincount(totals.argmax(axis=1), minlength=4) / number
    assert np.all(np.abs(shares - 0.25) < 4 * math.sqrt(0.25 * 0.75 / number))
    # A probability uniform in (0, 1): mean 1/2, variance 1/12.
    assert np.exp(totals).mean() == pytest.approx(0.5, abs=0.01)
    assert np.exp(totals).var() == pytest.approx(1 / 12, abs=0.005)


def test_random_is_keyed_by_seed_context_and_continuation_only():
    def ask(model, **changes):
        return outputs(
            model, [ScoreRequest(**({"sample_id": "a", "index": 0, "context": "x", "continuation": " y"} | changes))]
        )

    base = ask(random_model())
    assert ask(random_model(), sample_id="b", index=7) == base
    assert ask(random_model(1)) != base
    assert ask(random_model(), context="z") != base
    assert ask(random_model(), continuation=" z") != base
    assert ask(random_model(), context="x ", continuation="y") != base  # the border counts
    assert ask(random_model(), context="", messages=(Message(role="user", content="x"),)) != base
    assert random_model(0).info.fingerprint != random_model(1).info.fingerprint


def test_random_does_not_change_between_processes():
    code = (
        "from lydite.models.reference import random_model; from lydite.types import *; "
        "print(list(random_model(3).answer([ScoreRequest(sample_id='a', index=0, context='c', continuation=' d')])))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1
    assert b"logprobs" in seen.pop()


def test_random_text_obeys_its_limits():
    requests = [
        GenerateRequest(
            sample_id="a", index=i, prompt=f"p{i}", decoding=Decoding(max_new_tokens=3, stop_strings=("e",))
        )
        for i in range(200)
    ]
    found = outputs(random_model(), requests)
    assert all(output.num_tokens <= 3 and "e" not in output.text for output in found)
    assert {output.finish for output in found} == {"stop", "length"}
    assert len({output.text for output in found}) > 50
    other_seed = [GenerateRequest(sample_id="a", index=0, prompt="p", seed=seed) for seed in range(10)]
    assert len({output.text for output in outputs(random_model(), other_seed)}) > 5


def test_random_labels_and_spans():
    labels = [LabelRequest(sample_id="a", index=0, text=f"t{i}", labels=("p", "q", "r")) for i in range(600)]
    probs = np.array([output.probs for output in outputs(random_model(), labels)])
    assert np.allclose(probs.sum(axis=1), 1)
    assert np.all(np.abs(np.bincount(probs.argmax(axis=1)) / 600 - 1 / 3) < 0.08)
    (number,) = outputs(random_model(), [LabelRequest(sample_id="a", index=0, text="t")])
    assert len(number.probs) == 1
    for i in range(50):
        request = SpanRequest(sample_id="a", index=0, question=f"q{i}", passage="one two  three\nfour five")
        (span,) = outputs(random_model(), [request])
        assert span.text == request.passage[span.start : span.end] != ""
    assert outputs(random_model(), [SpanRequest(sample_id="a", index=0, question="q", passage=" ")])[0].text == ""


# ------------------------------------------------------------------------------------------- scripted


def script(tmp_path, *answers):
    path = tmp_path / "script.json"
    path.write_text(json.dumps({"answers": answers}))
    return load_model(f"scripted:{path}")


def test_a_script(tmp_path):
    model = script(
        tmp_path,
        {"sample_id": "b", "failure": "no such sample"},
        {"kind": "score", "contains": "two is", "logprob": -1.5},
        {"kind": "generate", "index": 0, "text": "a time"},
        {"probs": [0.2, 0.3, 0.5]},
    )
    score, text, label, _ = outputs(model, ALL)
    assert score.total == -1.5
    assert text == Completion(text="a time", num_tokens=2, finish="stop")
    assert label.probs == (0.2, 0.3, 0.5)
    (failure,) = outputs(model, [ScoreRequest(sample_id="b", index=0, continuation="x")])
    assert failure == Failure(reason="no such sample")
    assert model.info.name == "script"


def test_a_script_of_spans_and_of_nothing(tmp_path):
    assert outputs(script(tmp_path, {"span": [9, 12]}), [SPAN]) == [Span(start=9, end=12, text="Ben")]
    assert outputs(script(tmp_path), [SPAN]) == [Failure(reason="the script has no answer")]


def test_nan_is_a_failure(tmp_path):
    (output,) = outputs(script(tmp_path, {"logprob": "nan"}), [SCORE])
    assert isinstance(output, Failure)
    for value in (math.nan, math.inf, -math.inf):
        (output,) = outputs(ScriptedModel(lambda request, value=value: value), [SCORE])
        assert isinstance(output, Failure)
    (output,) = outputs(ScriptedModel(lambda request: [0.5, math.nan]), [LABEL])
    assert isinstance(output, Failure)


def test_ctrl_c_and_errors_pass_through(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        outputs(script(tmp_path, {"interrupt": True, "seconds": 0.01}), [SCORE])

    def broken(request):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        outputs(ScriptedModel(broken), [SCORE])


def test_an_answer_of_the_wrong_kind_is_a_failure(tmp_path):
    (output,) = outputs(script(tmp_path, {"text": "words"}), [SCORE])
    assert output == Failure(reason="the script answers a ScoreRequest with a str")


def test_fingerprints_of_scripts(tmp_path):
    first = script(tmp_path, {"text": "a"}).info.fingerprint
    assert script(tmp_path, {"text": "a"}).info.fingerprint == first
    assert script(tmp_path, {"text": "b"}).info.fingerprint != first


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"answers": [{"txt": "a"}]}', "unknown field `txt`"),
        ('{"answers": [{}]}', "answer 0 must have exactly one"),
        ('{"answers": [{"text": "a", "failure": "b"}]}', "exactly one"),
        ("not json", "does not fit"),
    ],
)
def test_a_script_that_does_not_fit(tmp_path, content, message):
    path = tmp_path / "script.json"
    path.write_text(content)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(f"scripted:{path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "settings", "message"),
    [
        ("scripted:absent.json", {}, "no script .*absent.json"),
        ("scripted", {}, "scripted:FILE.json"),
        ("null:nothing", {}, "there are uniform, random and scripted"),
        ("uniform:3", {}, "no null model"),
        ("random", {"seed": "x"}, "seed must be a whole number"),
    ],
)
def test_unknown_null_models(spec, settings, message):
    with pytest.raises(ModelError, match=message):
        load_model(spec, settings=settings)


def test_null_models_are_light():
    code = "import sys; from lydite.models import load_model; load_model('random'); print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
