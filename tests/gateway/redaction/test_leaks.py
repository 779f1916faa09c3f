"""Marked words that are personal come out of no program: not in messages, logs, metrics or records.

The scripted engine says a session's key terms among its words, so that the marks are received."""

import json
from contextlib import suppress
from time import monotonic, sleep
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import trio

from tests.harness.clients import converse, speech_like
from tests.harness.processes import free_port, running

MARKS = ("marked.person@example.com", "4111111111111111", "078-05-1120")
SPEECH = speech_like(20.0, pause_every=6.0, pause=2.0)


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Gateway and engine that log all they can; the gateway's port and everything they wrote."""
    kept = tmp_path_factory.mktemp("kept")
    log = ("--log-level", "debug", "--log-format", "json")
    engine = running("engine", "--model", "english", "--engine-kind", "scripted", *log)
    with engine as (engine_program, engine_port):
        endpoint = f"ws://127.0.0.1:{engine_port}"
        arguments = (
            *("--asr-endpoint", endpoint, "--redaction", "true", "--usage-dir", kept / "usage"),
            *("--webhook-hosts", "127.0.0.1", "--webhook-dir", kept / "webhooks", *log),
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
@pytest.mark.parametrize("partials", ["true", "false"])
def test_marked_words_come_out_nowhere(programs, partials):
    port, written = programs
    assert leaked(json.dumps(said(port).messages)), "the marks are received"
    hook = f"http://127.0.0.1:{free_port()}/"
    shown = said(port, redact_pii="true", include_partial_turns=partials, webhook_url=quote(hook))
    text = json.dumps(shown.messages)
    assert "####" in text
    assert not leaked(text)
    assert not leaked(written())
