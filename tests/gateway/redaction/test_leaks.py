"""Marked words that are personal come out of no program: not in messages, logs, metrics or records.

The scripted engine says a session's key terms among its words, so that the marks are received."""

import json
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import monotonic, sleep
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import trio

from tests.harness.clients import converse, speech_like
from tests.harness.processes import free_port, running

MARKS = ("marked.person@example.com", "4111111111111111", "078-05-1120")
LLM = {
    "model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "{{turn}}"}],
}  # fmt: skip
SPEECH = speech_like(20.0, pause_every=6.0, pause=2.0)


@pytest.fixture(scope="module")
def asked_of_llm():
    """An endpoint that notes what it is asked, and answers nothing that can be used."""
    bodies = []

    class Noting(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(self.rfile.read(int(self.headers["content-length"])).decode())
            self.send_error(503)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Noting)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, bodies
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def programs(tmp_path_factory, asked_of_llm):
    """Gateway and engine that log all they can; the gateway's port and everything they wrote."""
    kept = tmp_path_factory.mktemp("kept")
    log = ("--log-level", "debug", "--log-format", "json")
    engine = running("engine", "--model", "english", "--engine-kind", "scripted", *log)
    with engine as (engine_program, engine_port):
        endpoint = f"ws://127.0.0.1:{engine_port}"
        arguments = (
            *("--asr-endpoint", endpoint, "--engines", "english", "--redaction", "true"),
            *("--usage-dir", kept / "usage"),
            *("--webhook-hosts", "127.0.0.1", "--webhook-dir", kept / "webhooks", *log),
            *("--llm-gateway-url", f"http://127.0.0.1:{asked_of_llm[0]}/v1"),
        )
        with running("gateway", *arguments) as (gateway, port):

            def written():
                with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
                    metrics = page.read().decode()
                return engine_program.stderr + gateway.stderr + metrics + webhook_and_usage(kept)

            yield port, written


def webhook_and_usage(folder):
    """All files of both, as soon as they hold the redacted webhook, which nobody takes."""
    deadline = monotonic() + 60
    records = ""
    while "####" not in records:
        assert monotonic() < deadline
        sleep(0.05)
        with suppress(FileNotFoundError):  # renamed meanwhile
            records = "".join(p.read_text() for p in folder.rglob("*") if p.is_file())
    return records


def said(port, **query):
    url = f"ws://127.0.0.1:{port}/v3/ws"
    terms = quote(json.dumps(MARKS))
    return trio.run(
        lambda: converse(url, SPEECH, sample_rate=16_000, keyterms_prompt=terms, **query)
    )


def leaked(text):
    joined = text.lower()
    return [mark for mark in MARKS if mark in joined]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["universal-streaming-english", "u3-rt-pro"])
@pytest.mark.parametrize("partials", ["true", "false"])
def test_marked_words_come_out_nowhere(programs, asked_of_llm, partials, model):
    """Not to the client, whatever else it asks for, nor to anybody whom it has them sent to."""
    port, written = programs
    assert leaked(json.dumps(said(port).messages)), "the marks are received"
    hook = f"http://127.0.0.1:{free_port()}/"
    shown = said(
        port, redact_pii="true", include_partial_turns=partials, webhook_url=quote(hook),
        llm_gateway=quote(json.dumps(LLM)), speech_model=model, language_codes='["en"]',
        speaker_labels="true", format_turns="true", filter_profanity="true",
    )  # fmt: skip
    text = json.dumps(shown.messages)
    assert "####" in text
    assert any("####" in body for body in asked_of_llm[1])
    assert not leaked(text + "".join(asked_of_llm[1]))
    assert not leaked(written())
