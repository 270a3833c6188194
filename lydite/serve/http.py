"""The socket side of `lydite serve`: paths, bodies, errors, server-sent events.

The standard library's threading server carries it: what takes time is the one decoder, so an asynchronous framework would
bring two packages and no speed. A thread a connection, bodies of a bounded size, timeouts on every read and write.

Contract: every answer is JSON or a stream of it; a fault is an error object of one line; a client that goes away frees its
slots. Bound to this machine's own address, it answers to this machine's names only, so that a web page whose name was made
to point here cannot talk to it.
"""

import contextlib
import hmac
import select
import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from lydite.serve.protocol import BadRequest, ChatAsked, TextAsked, read
from lydite.serve.replies import error
from lydite.serve.service import Gone, Service

MOST_BYTES = 32 << 20
"""Of a body."""
_SECONDS = 60
"""That a client may take to send or to read a part."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PATHS: dict[str, type[TextAsked] | type[ChatAsked]] = {
    "/v1/completions": TextAsked,
    "/v1/chat/completions": ChatAsked,
}


class Server(ThreadingHTTPServer):
    """Listens on (host, port); port 0: any free one. `key`: what clients must bring along, if anything."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, service: Service, host: str, port: int, key: str = "") -> None:
        self.service = service
        self.key = key
        self.is_local = host in _LOOPBACK
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), Handler)

    @property
    def url(self) -> str:
        """Where clients find it."""
        host = str(self.server_address[0])
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is nobody's fault; anything else would have been answered."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "lydite"
    sys_version = ""
    timeout = _SECONDS
    wbufsize = -1  # head and body in one packet

    def do_GET(self) -> None:
        """The list of models, or one of them."""
        self._guarded(self._get)

    def do_POST(self) -> None:
        """Completions and chat."""
        self._guarded(self._post)

    def _guarded(self, answer: Callable[[], None]) -> None:
        try:
            self._check_client()
            answer()
        except BadRequest as problem:
            self._send(problem.status, error(problem))
        except (Gone, OSError):
            self.close_connection = True

    def _get(self) -> None:
        found = self.server.service.models()
        path = self.path.partition("?")[0].rstrip("/")
        if path == "/v1/models":
            self._send(200, found)
            return
        if path == "/health":
            self._send(200, {"status": "ok"})
            return
        for model in found["data"]:
            if path == f"/v1/models/{model['id']}":
                self._send(200, model)
                return
        raise BadRequest(f"there is no {self.path} here; see /v1/models", code="not_found", status=404)

    def _post(self) -> None:
        body = self._body()
        as_type = _PATHS.get(self.path.partition("?")[0].rstrip("/"))
        if as_type is None:
            raise BadRequest(
                f"there is no {self.path} here; there are {', '.join(_PATHS)}", code="not_found", status=404
            )
        asked: TextAsked | ChatAsked = read(body, as_type)  # type: ignore[type-var]
        service = self.server.service
        if not asked.stream:
            self._send(200, service.whole(asked, self._is_alive))
            return
        chunks = service.stream(asked, self._is_alive)
        with contextlib.closing(chunks):  # whatever happens to the connection, its slots are freed
            first = next(chunks)  # what cannot be done is an error, no stream
            self._stream(first, chunks)

    def _stream(self, first: dict[str, Any], chunks: Iterator[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        self._event(msgspec.json.encode(first))
        try:
            for chunk in chunks:
                self._event(msgspec.json.encode(chunk))
        except BadRequest as problem:
            self._event(msgspec.json.encode(error(problem)))
            return
        self._event(b"[DONE]")

    def _event(self, data: bytes) -> None:
        self.wfile.write(b"data: " + data + b"\n\n")
        self.wfile.flush()

    # ---------------------------------------------------------------------------------------- the client

    def _check_client(self) -> None:
        if self.server.is_local and _host(self.headers.get("Host", "")) not in _LOOPBACK:
            self.close_connection = True
            raise BadRequest("this server answers on this machine only", code="forbidden", status=403)
        given = self.headers.get("Authorization", "").removeprefix("Bearer ").encode()
        if self.server.key and not hmac.compare_digest(given, self.server.key.encode()):
            self.close_connection = True
            raise BadRequest("the key is missing or wrong", code="invalid_api_key", status=401)

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            self.close_connection = True
            raise BadRequest("the request needs a Content-Length", status=411)
        if int(length) > MOST_BYTES:
            self.close_connection = True
            raise BadRequest(f"the body is longer than {MOST_BYTES >> 20} MiB", status=413)
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise Gone
        return body

    def _is_alive(self) -> bool:
        """Whether the client still holds its end of the connection."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN | select.POLLHUP)
        if not poll.poll(0):
            return True
        try:
            return bool(self.connection.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    # ----------------------------------------------------------------------------------------- answers

    def _send(self, status: int, value: dict[str, Any]) -> None:
        data = msgspec.json.encode(value)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the library itself finds wrong (a bad request line, an unknown method), as an error object."""
        self.close_connection = True
        self._send(code, error(BadRequest(message or "bad request", status=code)))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests hold people's texts."""


def _host(header: str) -> str:
    """The name in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if ":" in header else header
