"""A trace collector: keeps what is posted to it, each body in a file.

    python collector.py PORT FOLDER

Needs nothing but the standard library, so that any process may be one. ``read_spans`` decodes.
"""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def make_server(port, folder, host="127.0.0.1"):
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                number = len(list(folder.glob("*.otlp")))
                (folder / f"{number:04}.otlp").write_bytes(body)
                (folder / f"{number:04}.head").write_text(f"{self.path}\n{self.headers}")
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    return ThreadingHTTPServer((host, port), Handler)


def read_spans(folder):
    """Every span as a dict (see ``_span``), and all that was sent as text."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans, texts = [], []
    for path in sorted(folder.glob("*.otlp")):
        request = ExportTraceServiceRequest.FromString(path.read_bytes())
        texts.append(str(request) + path.with_suffix(".head").read_text())
        for resource in request.resource_spans:
            of = _attributes(resource.resource.attributes)
            for scope in resource.scope_spans:
                spans += [_span(span, of["service.name"]) for span in scope.spans]
    return spans, "\n".join(texts)


def _span(span, service):
    return {
        "name": span.name,
        "service": service,
        "kind": span.kind,
        "attributes": _attributes(span.attributes),
        "events": len(span.events),
        "error": span.status.code == 2,
        "trace": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "seconds": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    }


def _attributes(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


if __name__ == "__main__":
    make_server(int(sys.argv[1]), Path(sys.argv[2]), "0.0.0.0").serve_forever()
