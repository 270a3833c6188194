"""A stand-in for the model hub on 127.0.0.1: the few paths that huggingface_hub asks for."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _handler(repo, files, asked):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *details):
            pass

        def reply(self, code, body=b"", **headers):
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = unquote(urlsplit(self.path).path)
            asked.append(path)
            if not path.removeprefix("/api/models").startswith(f"/{repo}"):
                self.reply(404, b"{}", X_Error_Code="RepoNotFound")
            elif path.startswith("/api/") and "/revision/" in path:
                if path.rsplit("/", 1)[-1] not in ("main", COMMIT):
                    self.reply(404, b"{}", X_Error_Code="RevisionNotFound")
                    return
                siblings = [{"rfilename": name} for name in files]
                self.json({"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "tags": []})
            elif path.startswith("/api/") and "/tree/" in path:
                self.json([{"type": "file", "path": n, "size": len(c), "oid": self.sum(c)} for n, c in files.items()])
            elif "/resolve/" in path:
                name = path.split("/resolve/")[1].split("/", 1)[1]
                if name not in files:
                    self.reply(404, b"{}", X_Error_Code="EntryNotFound")
                    return
                self.reply(200, files[name], ETag=f'"{self.sum(files[name])}"', X_Repo_Commit=COMMIT)
            else:
                self.reply(404, b"{}")

        def json(self, content):
            self.reply(200, json.dumps(content).encode(), Content_Type="application/json")

        @staticmethod
        def sum(content):
            return hashlib.sha1(content).hexdigest()

    return Handler


@contextmanager
def stand_in(repo, files):
    """Serves `files` (name -> bytes) as `repo`; yields the endpoint and the list of paths that were asked for."""
    asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(repo, files, asked))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
