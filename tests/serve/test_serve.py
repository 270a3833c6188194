"""`lydite serve` over real sockets: what our own client, a plain one and a rude one get."""

import contextlib
import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lydite.engine.live import Live
from lydite.models import load_model
from lydite.models.causal import load_causal
from lydite.serve.http import Server
from lydite.serve.service import Service
from lydite.types import Decoding, GenerateRequest, LogProbs, Message, ScoreRequest
from tests.tiny import TEXTS, save_tiny


@contextlib.contextmanager
def serving(model, **defaults):
    """A server with a thread of its own."""
    live = Live(model.generator)
    with Server(Service(live, model.info, defaults), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            live.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = save_tiny(tmp_path_factory.mktemp("tiny"), "llama", scale=6.0, chat=True, max_tokens=256)
    return load_causal(folder, name="tiny", source="test")


@pytest.fixture(scope="module")
def server(model):
    with serving(model) as found:
        yield found


def call(server, path, body=None, *, raw=None, headers=None):
    """(status, JSON) of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    connection.request("GET" if data is None else "POST", path, data, headers or {})
    reply = connection.getresponse()
    found = reply.read()
    connection.close()
    return reply.status, json.loads(found)


def complete(server, prompt, **body):
    status, reply = call(server, "/v1/completions", {"model": "tiny", "prompt": prompt, "temperature": 0} | body)
    assert status == 200, reply
    return reply


def events(server, path, body):
    """The chunks of a stream."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request("POST", path, json.dumps(body | {"stream": True}))
    reply = connection.getresponse()
    assert reply.getheader("Content-Type").startswith("text/event-stream"), reply.read()
    lines = [line for line in reply.read().decode().split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines[:-1]]


def direct(model, prompt, **decoding):
    request = GenerateRequest(sample_id="s", index=0, prompt=prompt, decoding=Decoding(**decoding))
    return dict(model.answer([request]))[0]


# -------------------------------------------------------------------------------------- the same numbers


def requests():
    contexts = [
        (TEXTS[2], " The cat"),
        (TEXTS[2], " The dog"),
        ("答案是", "北京"),
        ("The", "y said"),
        ("a b", "c 天 d"),
    ]
    found = [ScoreRequest(sample_id=c, index=i, context=c, continuation=t) for i, (c, t) in enumerate(contexts)]
    for i, text in enumerate(TEXTS):
        stops = ("he", "。") if i % 2 else ()
        decoding = Decoding(max_new_tokens=10 + i, stop_strings=stops)
        found.append(GenerateRequest(sample_id=str(i), index=0, prompt=text, decoding=decoding))
    turns = (Message(role="user", content="The cat?"),)
    found.append(GenerateRequest(sample_id="c", index=0, messages=turns, decoding=Decoding(max_new_tokens=9)))
    return found


@pytest.mark.parametrize("bos", [False, True])
def test_our_own_client_gets_what_the_model_gives_directly(tmp_path, bos):
    folder = save_tiny(tmp_path, "gemma3", scale=6.0, chat=True, bos=bos, max_tokens=256)
    model = load_causal(folder, name="tiny", source="test")
    asked = requests()
    if bos:  # the server puts BOS in front, so that an empty context can be scored
        asked.append(ScoreRequest(sample_id="e", index=0, context="", continuation="The cat sat"))
    expected = dict(model.answer(asked))
    with serving(model) as server:
        client = load_model(server.url, settings={"num_concurrent": 6, "timeout": 60})
        assert client.info.can == ("score", "generate")
        assert client.info.max_tokens == 256
        found = dict(client.answer(asked))
    for i, request in enumerate(asked):
        ours, theirs = expected[i], found[i]
        if isinstance(request, ScoreRequest):
            assert isinstance(theirs, LogProbs), theirs
            assert theirs.logprobs == pytest.approx(ours.logprobs, abs=1e-4)
            assert (theirs.greedy, theirs.join) == (ours.greedy, ours.join)
        else:
            assert theirs == ours, request
    assert len({expected[i].text for i in range(5, 12)}) > 3


def test_many_clients_at_a_time_get_the_texts_that_they_get_alone(model, server):
    jobs = [(TEXTS[i % 7] + " The" * (i % 3), 5 + 7 * (i % 4)) for i in range(10)]
    alone = [direct(model, prompt, max_new_tokens=size).text for prompt, size in jobs]
    most = []

    def one(job):
        reply = complete(server, job[0], max_tokens=job[1])
        most.append(server.service.live.num_open)
        return reply["choices"][0]["text"]

    with ThreadPoolExecutor(len(jobs)) as pool:
        assert list(pool.map(one, jobs)) == alone
    assert max(most) > 1, "they were served one after the other"


def test_a_stream_spells_the_whole_reply(model, server):
    body = {"model": "tiny", "prompt": TEXTS[6], "max_tokens": 40, "temperature": 0, "logprobs": 2, "n": 2}
    body |= {"stop": ["。", "he"], "stream_options": {"include_usage": True}}
    *chunks, last = events(server, "/v1/completions", body)
    whole = complete(server, TEXTS[6], max_tokens=40, logprobs=2, n=2, stop=["。", "he"])
    assert last["choices"] == []
    assert last["usage"] == whole["usage"]
    for choice in whole["choices"]:
        mine = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == choice["index"]]
        assert "".join(c["text"] for c in mine) == choice["text"]
        assert [c["finish_reason"] for c in mine][-1] == choice["finish_reason"]
        for key in ("tokens", "text_offset"):
            assert [one for c in mine for one in c["logprobs"][key]] == choice["logprobs"][key]
        numbers = [one for c in mine for one in c["logprobs"]["token_logprobs"]]
        assert numbers == pytest.approx(choice["logprobs"]["token_logprobs"], abs=1e-4)
        tops = [one for c in mine for one in c["logprobs"]["top_logprobs"]]
        for one, other in zip(tops, choice["logprobs"]["top_logprobs"], strict=True):
            assert one == pytest.approx(other, abs=1e-4)
        assert choice["text"] == direct(model, TEXTS[6], max_new_tokens=40, stop_strings=("。", "he")).text


def test_chat_streamed_and_whole(model, server):
    body = {"model": "tiny", "messages": [{"role": "system", "content": "Be."}], "temperature": 0, "max_tokens": 12}
    body["messages"].append({"role": "user", "content": [{"type": "text", "text": "The cat?"}]})
    body |= {"logprobs": True, "top_logprobs": 3}
    status, whole = call(server, "/v1/chat/completions", body)
    assert status == 200, whole
    [choice] = whole["choices"]
    turns = (Message(role="system", content="Be."), Message(role="user", content="The cat?"))
    asked = GenerateRequest(sample_id="s", index=0, messages=turns, decoding=Decoding(max_new_tokens=12))
    expected = dict(model.answer([asked]))[0]
    assert choice["message"] == {"role": "assistant", "content": expected.text}
    assert choice["finish_reason"] == expected.finish
    assert len(choice["logprobs"]["content"]) == expected.num_tokens == whole["usage"]["completion_tokens"]
    assert all(len(one["top_logprobs"]) == 3 and one["logprob"] <= 0 for one in choice["logprobs"]["content"])
    first, *chunks = events(server, "/v1/chat/completions", body)
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == expected.text


def test_echo_and_tokens_as_prompts(model, server):
    ids = model.encoder.prompt_ids([TEXTS[2]])[0]
    by_text = complete(server, TEXTS[2], echo=True, logprobs=1, max_tokens=3)["choices"][0]
    by_ids = complete(server, [ids], echo=True, logprobs=1, max_tokens=3)["choices"][0]
    assert by_text == by_ids
    assert by_text["text"] == TEXTS[2] + direct(model, TEXTS[2], max_new_tokens=3).text
    numbers = by_text["logprobs"]
    assert len(numbers["tokens"]) == len(ids) + 3
    assert numbers["token_logprobs"][0] is None
    for token, offset in zip(numbers["tokens"], numbers["text_offset"], strict=True):
        assert by_text["text"].startswith(token, offset)
    one = complete(server, TEXTS[2], echo=True, logprobs=1, max_tokens=1)["choices"][0]["logprobs"]
    assert one["tokens"] == numbers["tokens"][:-2]
    assert one["token_logprobs"][1:] == pytest.approx(numbers["token_logprobs"][1:-2], abs=1e-4)
    for text in TEXTS:  # one more token, even where it ends the text: lm-evaluation-harness counts on it
        listed = complete(server, text, echo=True, logprobs=1, max_tokens=1)["choices"][0]["logprobs"]["tokens"]
        assert len(listed) == len(model.encoder.prompt_ids([text])[0]) + 1
    two = complete(server, [TEXTS[0], "a"], echo=True, max_tokens=0)
    assert [choice["text"] for choice in two["choices"]] == [TEXTS[0], "a"]
    assert two["usage"]["completion_tokens"] == 0


def test_sampled_texts_repeat_by_seed_and_differ_otherwise(server):
    ask = {"temperature": 1.5, "max_tokens": 12}
    first, again = (complete(server, "The", seed=5, n=2, **ask)["choices"] for _ in range(2))
    assert [c["text"] for c in first] == [c["text"] for c in again]
    assert first[0]["text"] != first[1]["text"]
    free = {complete(server, "The", **ask)["choices"][0]["text"] for _ in range(3)}
    assert len(free) > 1


def test_what_a_request_leaves_out_is_what_the_server_was_started_with(model):
    with serving(model, max_new_tokens=7, do_sample=False) as server:
        status, reply = call(server, "/v1/completions", {"model": "tiny", "prompt": "The cat"})
    assert status == 200
    assert reply["choices"][0]["text"] == direct(model, "The cat", max_new_tokens=7).text


# --------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("completions", b"{not json", 400, "not JSON"),
        ("completions", b"\xff\xfe", 400, "not JSON"),
        ("completions", b"[" * 100_000, 400, ""),
        ("completions", {"prompt": "a", "wat": 1}, 400, "unknown field `wat`"),
        ("completions", {"model": "tiny"}, 400, "prompt"),
        ("completions", {"prompt": 3}, 400, "prompt"),
        ("completions", {"prompt": []}, 400, "1 to 256 prompts"),
        ("completions", {"prompt": [[999999]]}, 400, "outside of the model's"),
        ("completions", {"prompt": "a", "model": "gpt"}, 404, "'gpt' is not here"),
        ("completions", {"prompt": "a", "max_tokens": 400}, 400, "256 tokens, and 40"),
        ("completions", {"prompt": "The " * 600, "echo": True, "logprobs": 1, "max_tokens": 1}, 400, "shorten"),
        ("completions", {"prompt": "a", "temperature": -1}, 400, "temperature"),
        ("completions", {"prompt": "a", "n": 1000}, 400, "n`"),
        ("completions", {"prompt": "a", "stop": ["", "b"]}, 400, "an empty stop string"),
        ("completions", {"prompt": "a", "logit_bias": {"1": 2}}, 400, "logit_bias is not offered"),
        ("completions", {"prompt": "a", "best_of": 3}, 400, "best_of is not offered"),
        ("completions", {"prompt": "a", "regex": "(("}, 400, "regex"),
        ("chat/completions", {"messages": []}, 400, "messages"),
        ("chat/completions", {"messages": [{"role": "user", "content": "a"}], "tools": [{}]}, 400, "tools"),
        ("chat/completions", {"messages": [{"role": "wizard", "content": "a"}]}, 400, "messages"),
        ("embeddings", {"input": "a"}, 404, "/v1/completions"),
    ],
)
def test_mistakes_are_error_objects_of_one_line(server, path, body, status, words):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    found, reply = call(server, f"/v1/{path}", raw=raw)
    assert found == status, reply
    assert set(reply) == {"error"}
    assert set(reply["error"]) == {"message", "type", "param", "code"}
    assert "\n" not in reply["error"]["message"]
    assert words in reply["error"]["message"]
    streamed = call(server, f"/v1/{path}", raw=raw.replace(b"{", b'{"stream": true, ', 1))
    assert streamed[0] in (status, 400)


def test_models_and_other_paths(server, model):
    status, reply = call(server, "/v1/models")
    assert (status, [one["id"] for one in reply["data"]]) == (200, ["tiny"])
    assert call(server, "/v1/models/tiny")[1]["max_model_len"] == 256
    assert call(server, "/nowhere")[0] == 404


def test_only_this_machine_and_only_with_the_key(model):
    with serving(model) as server:
        assert call(server, "/v1/models", headers={"Host": "evil.example:80"})[0] == 403
        assert call(server, "/v1/models", headers={"Host": f"localhost:{server.server_port}"})[0] == 200
        server.key = "secret"
        assert call(server, "/v1/models")[0] == 401
        assert call(server, "/v1/models", headers={"Authorization": "Bearer secret"})[0] == 200


def test_bad_requests_of_the_wire(server):
    for raw in (b"NONSENSE\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as client:
            client.sendall(raw)
            reply = b""
            while part := client.recv(4096):
                reply += part
        assert b'"error"' in reply, reply


# ------------------------------------------------------------------------------------ clients that go away


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_slot(model, server, stream):
    live = server.service.live
    step = model.scorer.forward

    def slow(ids, **more):
        time.sleep(0.02)
        return step(ids, **more)

    model.scorer.forward = slow
    try:
        body = json.dumps({"prompt": "The", "max_tokens": 250, "temperature": 0, "stream": stream}).encode()
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as client:
            head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)
            until(lambda: live.num_open == 1)
        begun = model.generator.num_generated
        until(lambda: live.num_open == 0)
        assert model.generator.num_generated - begun < 200
    finally:
        model.scorer.forward = step


def until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)
