"""A stand-in for a Hugging Face hub: enough of its HTTP interface for pulling models, and faults.

Serves one repository at one commit from memory, on localhost, in a thread of its own.
"""

import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "someone/some-model"
LARGE = 1_000
"""Files of at least so many bytes are the hub's large files, whose SHA-256 it tells."""


class Hub:
    """``files``: name to content. ``break_after``: for each answer with a file, in turn, how many
    bytes are sent before the connection is cut (None, or nothing left: all). ``requests``: (path,
    Range header, Authorization header) of every request for a file."""

    def __init__(self, files):
        self.files = dict(files)
        self.break_after = []
        self.requests = []
        self.refuse = None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub.answer(self)

            def log_message(self, *args):
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return self

    def __exit__(self, *exc):
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request):
        if self.refuse is not None:
            return _send(request, self.refuse, b"refused")
        if re.fullmatch(rf"/api/models/{REPO}(/revision/(main|{COMMIT}))?(\?.*)?", request.path):
            return _send(request, 200, json.dumps(self._listing()).encode())
        match = re.fullmatch(rf"/{REPO}/resolve/{COMMIT}/([^?]+)", request.path)
        if not match or match[1] not in self.files:
            return _send(request, 404, b"no such entry")
        return self._send_file(request, match[1])

    def _listing(self):
        siblings = []
        for name, content in self.files.items():
            file = {"rfilename": name, "size": len(content), "blobId": "b" * 40}
            if len(content) >= LARGE:
                digest = hashlib.sha256(content).hexdigest()
                file["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 130}
            siblings.append(file)
        return {"id": REPO, "modelId": REPO, "sha": COMMIT, "siblings": siblings}

    def _send_file(self, request, name):
        content, start = self.files[name], 0
        header = request.headers.get("Range")
        self.requests.append((name, header, request.headers.get("Authorization")))
        if header:
            start = int(re.fullmatch(r"bytes=(\d+)-", header)[1])
        cut = self.break_after.pop(0) if self.break_after else None
        body = content[start:]
        request.send_response(206 if header else 200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[:cut])
        request.close_connection = cut is not None


def _send(request, status, body):
    request.send_response(status)
    request.send_header("Content-Length", str(len(body)))
    request.send_header("Content-Type", "application/json")
    request.end_headers()
    request.wfile.write(body)
