"""Models behind a server, against a stand-in that can be slow, flaky and wrong."""

import dataclasses
import math
import subprocess
import sys
import threading

import msgspec
import pytest

from lydite.errors import Interrupted, ModelError
from lydite.evaluate import evaluate
from lydite.models import load_model
from lydite.models.cache import CachedModel
from lydite.models.server import load_server, parse_spec
from lydite.models.server_client import Clock
from lydite.runs import read_run, read_samples
from lydite.types import (
    Completion,
    Decoding,
    Failure,
    GenerateRequest,
    LabelRequest,
    LogProbs,
    Message,
    Score,
    ScoreRequest,
)
from tests.fakes import choice_task, echo_task
from tests.models.standin import StandIn, toy_greedy, toy_logprob, toy_tokens, toy_word

FAST = {"backoff": 0.001, "timeout": 20}


def ask(model, requests):
    answers = dict(model.answer(requests))
    assert sorted(answers) == list(range(len(requests)))
    return [answers[position] for position in range(len(requests))]


def score(context, continuation, sample="s", index=0):
    return ScoreRequest(sample_id=sample, index=index, context=context, continuation=continuation)


def generate(prompt, **decoding):
    return GenerateRequest(sample_id="s", index=0, prompt=prompt, decoding=Decoding(**decoding), seed=2**40 + 5)


def expected(context, continuation):
    """The toy model's numbers, one token after the other."""
    numbers, before = [], context
    for token in toy_tokens(continuation):
        numbers.append(toy_logprob(before, token))
        before += token
    return numbers


def only_questions(number_from=1, **fault):
    """A fault of every real request, from the so-many-th attempt on, but not of the probes."""

    def decide(number, path, body):
        text = body.get("prompt") or body["messages"][0]["content"]
        return None if "quick brown" in text or text == "Say yes." or number < number_from else fault

    return decide


# ------------------------------------------------------------------------------------------- answers


def test_continuations_get_the_servers_own_log_probabilities():
    pairs = [("The cat sat", " on the mat."), ("", "A text from nothing"), ("答案是", "北京"), ("Q: a\nA:", " b")]
    with StandIn() as server:
        model = load_model(server.url, settings=FAST)
        assert model.info.can == ("score", "generate")
        outputs = ask(model, [score(*pair, sample=str(i)) for i, pair in enumerate(pairs)])
    for (context, continuation), output in zip(pairs, outputs, strict=True):
        assert isinstance(output, LogProbs), output
        assert output.logprobs == pytest.approx(expected(context, continuation))
        assert "".join(output.tokens) == continuation
        assert output.greedy == all(map(toy_greedy, toy_tokens(continuation)))
        assert (output.join, output.rule) == ("clean", "causal")


def test_a_token_over_the_border_moves_it_for_all_choices_of_a_sample():
    with StandIn() as server:
        model = load_model(server.url, settings=FAST)
        spanned, clean = ask(model, [score("He is un", "happy", index=0), score("He is un", " tired", index=1)])
        alone = ask(model, [score("He is un", " tired", sample="other")])[0]
    assert spanned.tokens == (" unhappy",)
    assert clean.tokens == (" un", " tired")
    assert clean.total == pytest.approx(sum(expected("He is", " un tired")))
    assert (spanned.join, clean.join, alone.join) == ("spanned", "spanned", "clean")
    assert alone.tokens == (" tired",)


def test_without_bos_the_first_token_has_no_number_and_lead_mends_it():
    with StandIn(bos=False) as server:
        bare = ask(load_model(server.url, settings=FAST), [score("", "A text"), score("Some", " text", "t")])
        model = load_model(server.url, settings=FAST | {"lead": "@"})
        led = ask(model, [score("", "A text")])[0]
    assert isinstance(bare[0], Failure)
    assert "lead" in bare[0].reason
    assert isinstance(bare[1], LogProbs)
    assert led.logprobs == pytest.approx(expected("@", "A text"))
    assert model.info.settings["lead"] == "@"


def test_texts_are_cut_at_stop_strings_and_say_how_they_ended():
    with StandIn() as server:
        model = load_model(server.url, settings=FAST)
        cut, whole, chat = ask(
            model,
            [
                generate("one", stop_strings=("zzz", "yyy", "xxx", "www", " STOP")),
                generate("one", max_new_tokens=7),
                GenerateRequest(sample_id="c", index=0, messages=(Message(role="user", content="hi"),)),
            ],
        )
        bodies = {path: body for path, body in server.asked if body.get("prompt") == "one" or "messages" in body}
    assert cut == Completion(text=f"{toy_word('one')}.", num_tokens=4, finish="stop")
    assert whole == Completion(text=f"{toy_word('one')}. STOP more", num_tokens=4, finish="length")
    assert chat == Completion(text=toy_word("hi"), num_tokens=2, finish="stop")
    assert bodies["/v1/chat/completions"]["messages"] == [{"role": "user", "content": "hi"}]
    assert bodies["/v1/completions"]["max_tokens"] in (7, 256)


def test_sampling_options_are_sent_and_those_without_a_name_refused():
    with StandIn() as server:
        model = load_model(server.url, settings=FAST | {"extra_body": {"min_tokens": 1}})
        ask(model, [generate("a", do_sample=True, temperature=0.5, top_p=0.9, top_k=3, repetition_penalty=1.5)])
        ask(model, [generate("b", temperature=0.5, top_p=0.9)])
        sampled, greedy = (body for _, body in server.asked[-2:])
        with pytest.raises(ModelError, match="num_beams=2"):
            ask(model, [generate("c", num_beams=2)])
        turns = (Message(role="user", content="x"),)
        with pytest.raises(ModelError, match="--chat"):
            ask(model, [ScoreRequest(sample_id="s", index=0, messages=turns, continuation=" y")])
    assert {"temperature": 0.5, "top_p": 0.9, "top_k": 3, "repetition_penalty": 1.5, "min_tokens": 1}.items() <= (
        sampled.items()
    )
    assert 0 <= sampled["seed"] < 2**31
    assert greedy["temperature"] == 0
    assert "top_p" not in greedy


def test_what_cannot_be_answered_or_sent_fails():
    requests = [LabelRequest(sample_id="s", index=0, text="x"), generate("\ud800"), score("a", ""), score("", "\ud800")]
    with StandIn() as server:
        outputs = ask(load_model(server.url, settings=FAST), requests)
    assert all(isinstance(output, Failure) and not output.transient for output in outputs), outputs


# ------------------------------------------------------------------------------------------ abilities


@pytest.mark.parametrize("how", ["none", "zeros", "short", "no top", "refused", "only generated", "one place off"])
def test_no_log_probabilities_of_the_prompt_no_score_requests(how, capsys):
    def fault(number, path, body):
        def change(reply):
            found = reply["choices"][0]["logprobs"]
            if how == "zeros":
                found["token_logprobs"] = [0.0] * len(found["tokens"])
            elif how == "short":
                found["token_logprobs"].pop()
            elif how == "no top":
                found["top_logprobs"] = None
            elif how == "one place off":  # what the model finds likely after a token stands beside it
                places = range(2, len(found["tokens"]))
                found["top_logprobs"][2:] = [{found["tokens"][i]: -9.0, "other": -0.1} for i in places]
            elif how == "only generated":
                for key in found:
                    found[key] = found[key][-1:]

        if not body.get("echo"):
            return None
        return {"status": 400, "body": {"error": "echo?"}} if how == "refused" else {"reply": change}

    touched = []
    task = choice_task(samples=lambda split: touched.append(split))
    with StandIn(fault if how != "none" else None, scores=how != "none") as server:
        model = load_model(server.url, settings=FAST)
        assert model.info.can == ("generate",)
        with pytest.raises(ModelError, match="cannot answer score requests"):
            evaluate(model, task)
        assert isinstance(ask(model, [generate("x")])[0], Completion)
    assert not touched
    assert "cannot score choices" in capsys.readouterr().err


def test_a_server_that_only_chats_gets_prompts_as_a_users_turn():
    def newest_openai(number, path, body):
        if "max_tokens" in body:
            return {"status": 400, "body": {"error": {"message": "use 'max_completion_tokens' instead"}}}
        if body.get("temperature") == 0:
            return {"status": 400, "body": {"error": {"message": "'temperature' does not support 0"}}}
        return None

    with StandIn(completions=False) as server:
        model = load_model(server.url, settings=FAST)
        assert (model.info.can, model.info.settings["api"]) == (("generate",), "chat")
        assert ask(model, [generate("hello")]) == [Completion(text=toy_word("hello"), num_tokens=2, finish="stop")]
    with StandIn(newest_openai, completions=False) as server:
        model = load_model(server.url, settings=FAST)
        assert ask(model, [generate("hello", max_new_tokens=9)])[0].text == toy_word("hello")
        assert server.asked[-1][1]["max_completion_tokens"] == 9
        assert model.info.settings["temperature"] == "the server's own"


def test_the_model_is_the_named_one_or_the_only_one():
    with StandIn(models=("a/b", "c")) as server:
        with pytest.raises(ModelError, match=r"2 models.*#MODEL.*a/b, c"):
            load_model(server.url, settings=FAST)
        named = load_model(f"{server.url}#a/b", settings=FAST).info
        other = load_model(f"{server.url}/#c", settings=FAST).info
    assert named.name == "a/b"
    assert named.fingerprint != other.fingerprint
    with StandIn(models=None) as server:
        with pytest.raises(ModelError, match="does not list its models"):
            load_model(server.url, settings=FAST)
        assert load_model(f"{server.url}#any", settings=FAST).info.name == "any"


def test_addresses(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert parse_spec("openai:gpt-x") == ("https://api.openai.com/v1", "gpt-x", "OPENAI_API_KEY")
    assert parse_spec("http://h:1") == ("http://h:1/v1", "", "LYDITE_API_KEY")
    assert parse_spec("https://h/api/v2/#m/n") == ("https://h/api/v2", "m/n", "LYDITE_API_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:9/v1/")
    assert parse_spec("openai:m")[0] == "http://localhost:9/v1"
    for bad in ("http://", "http://h:port/v1", "openai:"):
        with pytest.raises(ModelError):
            parse_spec(bad)
    for secret in ("http://me:hunter2@h/v1", "http://hunter2@h/v1", "http://h/v1?key=hunter2"):
        with pytest.raises(ModelError) as error:
            parse_spec(secret)
        assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "settings", [{"num_concurrent": 0}, {"timeout": -1}, {"beams": 2}, {"api": "both"}, {"max_retries": -1}]
)
def test_settings_that_do_not_fit_are_refused(settings):
    with pytest.raises(ModelError):
        load_model("http://127.0.0.1:9/v1", settings=settings)


def test_nobody_there_is_said_at_once():
    with pytest.raises(ModelError, match="no server answers"):
        load_model("http://127.0.0.1:9/v1", settings={"backoff": 1000})


def test_loading_a_served_model_imports_no_torch():
    with StandIn() as server:
        code = (
            "import sys; from lydite.models import load_model; load_model(sys.argv[1])\n"
            "assert not {'torch', 'transformers'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code, server.url], check=True)


# --------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500, "body": {"error": "boom"}},
        {"status": 503, "body": b"<html>busy</html>"},
        {"drop": True},
        {"half": True},
        {"body": b'{"choices": [{"text": '},
        {"body": {"choices": []}},
        {"body": {"error": {"message": "upstream away"}}},
        {"body": b'{"choices": [{"text": "x", "logprobs": {"token_logprobs": [NaN]}}]}'},
    ],
    ids=lambda fault: str(fault)[:40],
)
def test_passing_faults_are_tried_again_and_in_the_end_fail(fault):
    requests = [score("one", " two"), generate("three")]
    with StandIn(lambda n, path, body: only_questions(**fault)(n, path, body) if n <= 2 else None) as server:
        first, second = ask(load_model(server.url, settings=FAST | {"max_retries": 2}), requests)
        assert first.logprobs == pytest.approx(expected("one", " two"))
        assert second.text == f"{toy_word('three')}. STOP more"
    with StandIn(only_questions(**fault)) as server:
        outputs = ask(load_model(server.url, settings=FAST | {"max_retries": 1}), requests)
        assert all(isinstance(output, Failure) and output.transient for output in outputs), outputs
        assert "tried 2 times" in outputs[0].reason
        assert len(server.texts()) == 4


def test_a_slow_server_runs_into_the_timeout():
    with StandIn(only_questions(seconds=1.5)) as server:
        model = load_model(server.url, settings={"timeout": 0.3, "max_retries": 0})
        [output] = ask(model, [score("one", " two")])
    assert output == Failure(reason="no answer within 0.3 s; tried 1 times", transient=True)


@pytest.mark.parametrize("how", ["short", "long", "no echo", "other text", "positive", "missing", "infinite"])
def test_wrong_replies_are_failures_and_never_numbers(how):
    def change(reply):
        found = reply["choices"][0]["logprobs"]
        if how == "short":
            found["token_logprobs"].pop()
        elif how == "long":
            found["tokens"].insert(1, " surprise")
        elif how == "no echo":
            for key in found:
                found[key] = found[key][-1:]
        elif how == "other text":
            found["tokens"][2] = " other"
        elif how == "positive":
            found["token_logprobs"] = [0.5 for _ in found["tokens"]]
        elif how == "missing":
            found["token_logprobs"] = [None for _ in found["tokens"]]
        elif how == "infinite":
            found["token_logprobs"] = [-9999.0 for _ in found["tokens"]]

    with StandIn(only_questions(reply=change)) as server:
        [output] = ask(load_model(server.url, settings=FAST), [score("one two", " three four")])
        assert len(server.texts()) == 1
    assert isinstance(output, Failure)
    assert not output.transient


@pytest.mark.parametrize("finish", ["content_filter", None, "abort"])
def test_a_text_that_ended_for_another_reason_is_a_failure(finish):
    def change(reply):
        reply["choices"][0]["finish_reason"] = finish

    with StandIn(only_questions(reply=change)) as server:
        [output] = ask(load_model(server.url, settings=FAST), [generate("x")])
    assert isinstance(output, Failure)


def test_a_request_that_the_server_refuses_fails_alone_and_once():
    def too_long(number, path, body):
        long = len(body["prompt"]) > 60
        return {"status": 400, "body": {"error": {"message": "too long"}}} if long else None

    with StandIn(too_long) as server:
        model = load_model(server.url, settings=FAST)
        long, short = ask(model, [score("x" * 90, " y", "long"), score("x", " y", "short")])
        assert len(server.texts()) == 2
    assert long == Failure(reason="HTTP 400: too long")
    assert isinstance(short, LogProbs)


class FakeClock:
    """Time that passes only in sleep."""

    def __init__(self):
        self.time, self.slept, self.lock = 1000.0, [], threading.Lock()

    def now(self):
        return self.time

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.time += seconds


def test_retry_after_is_honoured_and_a_long_one_stops_the_run():
    def busy(wait):
        return lambda n, path, body: (
            only_questions(status=429, headers={"Retry-After": wait})(n, path, body) if n == 1 else None
        )

    clock = FakeClock()
    with StandIn(busy("77")) as server:
        model = load_server(server.url, {"num_concurrent": 1}, clock=Clock(clock.now, clock.sleep))
        assert isinstance(ask(model, [score("one", " two")])[0], LogProbs)
    assert 77 <= sum(clock.slept) < 79
    with StandIn(busy("7200")) as server:
        model = load_model(server.url, settings=FAST)
        with pytest.raises(ModelError, match="asks to wait 7200 s"):
            ask(model, [score("one", " two")])


def test_pauses_double_and_are_jittered():
    clock = FakeClock()
    with StandIn(only_questions(status=500)) as server:
        model = load_server(
            server.url, {"num_concurrent": 1, "backoff": 8, "max_retries": 5}, clock=Clock(clock.now, clock.sleep)
        )
        assert isinstance(ask(model, [score("one", " two")])[0], Failure)
    assert len(clock.slept) == 5
    for seconds, longest in zip(clock.slept, [8, 16, 32, 60, 60], strict=True):
        assert longest / 2 <= seconds <= longest
    assert clock.slept[3] != clock.slept[4]


@pytest.mark.parametrize(
    ("limits", "least"), [({"requests_per_minute": 6}, 90), ({"tokens_per_minute": 60}, 60), ({}, 0)]
)
def test_no_more_requests_or_tokens_a_minute_than_asked_for(limits, least):
    """Ten requests at 6 a minute take 90 seconds; of about 7 tokens each at 60 a minute, 63."""
    clock = FakeClock()
    with StandIn() as server:
        model = load_server(server.url, limits | {"num_concurrent": 1}, clock=Clock(clock.now, clock.sleep))
        before = clock.time
        ask(model, [score("one two three four five", f" six{i}", sample=str(i)) for i in range(10)])
    assert least <= clock.time - before <= least + 30


def test_as_many_requests_at_once_as_asked_for_and_answers_before_all_are_there():
    slowest = threading.Event()

    def fault(number, path, body):
        if "slow" in body["prompt"]:
            slowest.wait(timeout=20)  # until the others were read
        return {"seconds": 0.02}

    with StandIn(fault) as server:
        model = load_model(server.url, settings=FAST | {"num_concurrent": 4})
        requests = [score("slow", " x", "slow")] + [score(f"c{i}", " x", str(i)) for i in range(12)]
        order = []
        for position, _ in model.answer(requests):
            order.append(position)
            if len(order) == 12:
                slowest.set()
        assert order[-1] == 0
        assert 1 < server.most_busy <= 4


def test_a_server_that_goes_away_stops_the_run_and_the_same_command_asks_again(tmp_path):
    away = {"now": True}
    task = choice_task(30)

    def fault(number, path, body):
        return (
            {"status": 503} if away["now"] and "quick brown" not in body["prompt"] and "3" in body["prompt"] else None
        )

    with StandIn(fault) as server:
        settings = FAST | {"max_retries": 0, "num_concurrent": 1}
        run = evaluate(load_model(server.url, settings=settings), task, out=tmp_path)
        failed = run.estimates[0].n_failed
        assert failed == 3
        asked = len(server.texts())
        away["now"] = False
        again = evaluate(load_model(server.url, settings=settings), task, out=tmp_path)
        assert (again.estimates[0].n_failed, again.estimates[0].n) == (0, 30)
        assert len(server.texts()) - asked == 2 * failed
        leaf = tmp_path / "toy" / "coin"
        assert len(list(read_samples(leaf))) == 30
        plain = evaluate(load_model(server.url, settings=settings), task)
        assert plain.estimates[0].value == again.estimates[0].value
    with StandIn(only_questions(status=503)) as server:
        with pytest.raises(ModelError, match=r"did not answer the last 10 requests.*same command continues"):
            evaluate(load_model(server.url, settings=settings), task, out=tmp_path / "gone")
        assert len(server.texts()) == 10


def test_an_interrupted_run_continues_without_asking_twice(tmp_path):
    task = choice_task(20)
    with StandIn(lambda n, path, body: {"seconds": 0.005}) as server:

        def stop(progress):
            if progress.done == 5:
                raise KeyboardInterrupt

        with pytest.raises(Interrupted):
            evaluate(load_model(server.url, settings=FAST), task, out=tmp_path, on_progress=stop)
        kept = {record.id for record in read_samples(tmp_path / "toy" / "coin")}
        assert len(kept) == 5
        before = len(server.texts())
        run = evaluate(load_model(server.url, settings=FAST), task, out=tmp_path)
        assert len(server.texts()) - before == 2 * (20 - 5)
    assert run.estimates[0].n == 20


def test_a_flaky_server_gives_the_numbers_of_a_steady_one(tmp_path):
    faults = [{"status": 500}, {"drop": True}, {"half": True}, None, {"status": 429, "headers": {"Retry-After": "0"}}]

    def flaky(number, path, body):
        return faults[(number + len(body["prompt"])) % 5] if number < 6 and "quick" not in body["prompt"] else None

    task = choice_task(12)
    with StandIn() as server:
        steady = evaluate(load_model(server.url, settings=FAST), task)
    with StandIn(flaky) as server:
        shaken = evaluate(load_model(server.url, settings=FAST | {"max_retries": 8}), task, out=tmp_path)
        assert len(server.texts()) > 50
    assert shaken.estimates[0].n_failed == 0
    assert shaken.estimates[0].value == steady.estimates[0].value


def test_answers_are_kept_by_address_and_name(tmp_path):
    with StandIn(models=("a", "b")) as server:
        for name, new in (("a", 1), ("a", 0), ("b", 1)):
            before = len(server.texts())
            ask(CachedModel(load_model(f"{server.url}#{name}", settings=FAST), tmp_path), [score("one", " two")])
            assert len(server.texts()) - before == new


# ----------------------------------------------------------------------------------------------- keys

SECRET = "sk-lydite-0123456789abcdef"


def test_the_key_is_sent_and_written_nowhere(tmp_path, monkeypatch, capsys):
    """The stand-in repeats the key in errors and in an answer, as a careless server might."""

    def careless(number, path, body):
        if "3" in body["prompt"]:
            return {"status": 400, "body": {"error": {"message": f"bad request by {SECRET}"}}}
        if "4" in body["prompt"]:
            return {"status": 500, "body": f"trace: Bearer {SECRET}".encode()}
        if "5" in body["prompt"]:
            return {"reply": lambda reply: reply["choices"][0].update(text=f"your key is {SECRET}")}
        return None

    monkeypatch.setenv("LYDITE_API_KEY", SECRET)
    with StandIn(careless, key=SECRET) as server:
        model = load_model(server.url, settings=FAST | {"max_retries": 1})
        assert SECRET not in repr(model) + repr(vars(model))
        run = evaluate(model, text_task(8), out=tmp_path)
        assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {SECRET}"}
    assert run.estimates[0].n_failed == 3
    reasons = [o.reason for r in read_samples(tmp_path / "toy" / "echo") for o in r.outputs if isinstance(o, Failure)]
    assert any("***" in reason for reason in reasons)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 2
    for path in written:
        assert SECRET.encode() not in path.read_bytes(), path
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    assert SECRET not in msgspec.json.encode(read_run(tmp_path / "toy" / "echo")).decode()


def text_task(number):
    """Generated texts, of which nothing is asked."""

    def score_text(sample, outputs):
        if isinstance(outputs[0], Failure):
            return [Score(sample_id=sample.id, metric="acc", value=None, status="error", note=outputs[0].reason)]
        return [Score(sample_id=sample.id, metric="acc", value=1.0, answer=outputs[0].text)]

    return dataclasses.replace(echo_task(number), score=score_text)


def test_a_key_that_is_missing_or_wrong_is_one_line_that_names_the_variable(monkeypatch):
    monkeypatch.delenv("LYDITE_API_KEY", raising=False)
    with StandIn(key=SECRET) as server:
        with pytest.raises(ModelError, match="put a key into LYDITE_API_KEY"):
            load_model(server.url, settings=FAST)
        monkeypatch.setenv("MY_KEY", "wrong-key-wrong-key")
        with pytest.raises(ModelError, match="key in MY_KEY is not accepted") as error:
            load_model(server.url, settings=FAST | {"api_key_env": "MY_KEY"})
        assert "wrong-key" not in str(error.value)
        monkeypatch.setenv("MY_KEY", "bad\nkey")
        with pytest.raises(ModelError, match="header cannot carry"):
            load_model(server.url, settings=FAST | {"api_key_env": "MY_KEY"})
    # A key for OpenAI is not sent to another address.
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with StandIn() as server:
        load_model(server.url, settings=FAST)
        assert all("Authorization" not in headers for headers in server.headers)


def test_usage_counts_what_the_server_says():
    with StandIn() as server:
        model = load_model(server.url, settings=FAST)
        ask(model, [score("one two", " three"), generate("four five")])
    assert (model.usage.tokens_requested, model.usage.tokens_generated) == (5, 4)
    assert math.isfinite(model.usage.load_seconds)
