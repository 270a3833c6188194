"""A stand-in for a server that speaks the OpenAI protocol: a real socket, a toy language model, and faults on request.

The toy model: tokens are words with the space before them, or single other characters; the probability of a token is a
hash of everything before it. `toy_logprob` says what any honest client must find.
"""

import contextlib
import hashlib
import json
import math
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = re.compile(r" ?[a-zA-Z0-9]+|.", re.DOTALL)


def toy_tokens(text):
    return TOKEN.findall(text)


def toy_logprob(before, token):
    digest = hashlib.sha256(f"{before}|{token}".encode()).digest()
    return math.log((digest[0] + 1) / 257)


def toy_word(prompt):
    return f" word{hashlib.sha256(prompt.encode()).digest()[0]}"


def echo(prompt, *, bos=True, generated=True):
    """`logprobs` of a reply that echoes the prompt and one generated token."""
    tokens, numbers, tops, offsets = ([""], [None], [None], [0]) if bos else ([], [], [], [])
    at = 0
    own = toy_own(prompt)
    for number, token in enumerate(toy_tokens(prompt)):
        value = None if number == 0 and not bos else toy_logprob(prompt[:at], token)
        tokens.append(token)
        numbers.append(value)
        # Every token with an even hash is the most likely one, and all that the model writes itself.
        best = toy_greedy(token) or at >= own
        tops.append(None if value is None else {token: value} if best else {token: value, "?": value / 2})
        offsets.append(at)
        at += len(token)
    if generated:
        tokens, numbers, tops, offsets = [*tokens, " end"], [*numbers, -0.5], [*tops, {" end": -0.5}], [*offsets, at]
    if bos:
        tokens[0] = "<s>"
    return {"tokens": tokens, "token_logprobs": numbers, "top_logprobs": tops, "text_offset": offsets}


TAIL = ". STOP more"


def toy_own(text):
    """Where in a text begins what the toy model itself would write after the rest; its length where nothing does."""
    match = re.fullmatch(r"(.*)( word\d+)", text.removesuffix(TAIL), re.DOTALL)
    return len(match[1]) if match and toy_word(match[1]) == match[2] else len(text)


def toy_greedy(token):
    return hashlib.sha256(token.encode()).digest()[1] % 2 == 0


class StandIn:
    """`with StandIn() as server:` serves on server.url.

    `fault(number, path, body)` may return what to do instead of answering, for the number-th POST of this body: a dict
    with `status`, `headers`, `body` (bytes or JSON), `drop` (close the connection), `half` (close it in mid-answer),
    `seconds` (be slow), or `reply` (changes the honest reply in place).
    """

    def __init__(self, fault=None, *, models=("toy",), completions=True, chat=True, scores=True, key=None, bos=True):
        self.fault = fault or (lambda number, path, body: None)
        self.models, self.completions, self.chat, self.scores = models, completions, chat, scores
        self.key, self.bos = key, bos
        self.asked = []
        self.headers = []
        self.counts = {}
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()

    def __enter__(self):
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one packet

            def do_GET(self):
                stand_in.get(self)

            def do_POST(self):
                stand_in.post(self)

            def handle(self):
                with contextlib.suppress(OSError):  # a client that has gone away
                    super().handle()

            def finish(self):
                with contextlib.suppress(OSError):
                    super().finish()

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.http.shutdown()
        self.http.server_close()

    def texts(self):
        """Prompts of the scoring and generating requests after the probes."""
        found = [body.get("prompt") or body["messages"][0]["content"] for _, body in self.asked]
        return [text for text in found if "quick brown fox" not in text and text != "Say yes."]

    def get(self, handler):
        if self.key and handler.headers.get("Authorization") != f"Bearer {self.key}":
            return send(handler, 401, {"error": {"message": "no valid key"}})
        if self.models is None:
            return send(handler, 404, {"detail": "Not Found"})
        return send(handler, 200, {"object": "list", "data": [{"id": name, "owned_by": "x"} for name in self.models]})

    def post(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.asked.append((handler.path, body))
            self.headers.append(dict(handler.headers))
            name = json.dumps(body, sort_keys=True)
            number = self.counts[name] = self.counts.get(name, 0) + 1
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
        try:
            self.reply(handler, body, self.fault(number, handler.path, body) or {})
        finally:
            with self.lock:
                self.busy -= 1

    def reply(self, handler, body, fault):
        time.sleep(fault.get("seconds", 0))
        if fault.get("drop"):
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
            return
        if self.key and handler.headers.get("Authorization") != f"Bearer {self.key}":
            send(handler, 401, {"error": {"message": f"no: {handler.headers.get('Authorization')}"}})
            return
        if "status" in fault or "body" in fault:
            send(handler, fault.get("status", 200), fault.get("body", {}), fault.get("headers", {}))
            return
        chat = handler.path == "/v1/chat/completions"
        if (not chat and handler.path != "/v1/completions") or not (self.chat if chat else self.completions):
            send(handler, 404, {"error": {"message": f"no {handler.path} here"}})
            return
        reply = self.chat_reply(body) if chat else self.text_reply(body)
        if "reply" in fault:
            fault["reply"](reply)
        send(handler, 200, reply, half=fault.get("half", False))

    def text_reply(self, body):
        prompt = body["prompt"]
        if body.get("echo"):
            logprobs = echo(prompt, bos=self.bos) if self.scores else None
            choice = {"index": 0, "text": prompt + " end", "finish_reason": "length", "logprobs": logprobs}
            counts = {"prompt_tokens": len(toy_tokens(prompt)), "completion_tokens": 1}
        else:
            choice = {"index": 0, "text": toy_word(prompt) + TAIL, "finish_reason": "length", "logprobs": None}
            counts = {"prompt_tokens": len(toy_tokens(prompt)), "completion_tokens": 4}
        return {"id": "1", "object": "text_completion", "model": body["model"], "choices": [choice], "usage": counts}

    def chat_reply(self, body):
        said = " / ".join(message["content"] for message in body["messages"])
        turn = {"role": "assistant", "content": toy_word(said)}
        return {"choices": [{"index": 0, "message": turn, "finish_reason": "stop"}], "usage": {"completion_tokens": 2}}


def send(handler, status, body, headers=None, *, half=False):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(data)))
    handler.send_header("Content-Type", "application/json")
    handler.end_headers()
    if half:
        handler.wfile.write(data[: len(data) // 2])
        handler.wfile.flush()
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)
    else:
        handler.wfile.write(data)
