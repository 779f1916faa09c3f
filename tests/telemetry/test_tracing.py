"""Traces: what is in them, how they hang together, and that nobody waits for them."""

import re
import subprocess
import sys
import threading
from collections import deque
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from ssasr.engine.scripted import ScriptedRecognizer
from ssasr.errors import StartRefused
from ssasr.gateway.auth.access import Access, parse_keys
from ssasr.gateway.auth.tokens import TokenMint
from ssasr.gateway.gateway import Gateway, GatewayLimits
from ssasr.gateway.http import gateway_routes, http_app
from ssasr.protocol.recognition import Final, Finalize, Open, StreamOptions
from ssasr.protocol.speech_models import EngineKind
from ssasr.routing.failover import ResilientEngines
from ssasr.routing.models import Offer
from ssasr.telemetry import tracing
from ssasr.telemetry.metrics import Metrics
from ssasr.telemetry.tracing import ATTRIBUTES, Destination, destination
from tests.contracts.engine_link import SAMPLES, VERSION, say, until
from tests.harness.clients import converse, speech_like
from tests.harness.collector import make_server, read_spans
from tests.harness.engines import engine_server
from tests.harness.memory_links import Fate, MemoryEngines
from tests.harness.processes import free_port, running

SERVER, CLIENT, INTERNAL = 2, 3, 1
MONITORING = Path(__file__).parents[2] / "docs" / "monitoring.md"


@contextmanager
def collector(folder):
    """Its address."""
    server = make_server(0, folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def collected(tmp_path):
    with collector(tmp_path) as url:
        yield Destination(url + tracing.PATH), tmp_path


def named(spans, name):
    return [span for span in spans if span["name"] == name]


async def test_a_session_is_one_trace_through_gateway_and_engine(collected, nursery):
    where, folder = collected
    async with (
        tracing.tracing(where, "gateway") as tracer,
        tracing.tracing(where, "engine") as other,
        engine_server() as (server, client),
    ):
        server.tracer = other
        engines, access = ResilientEngines(client, Metrics()), Access(
            parse_keys("self-hosted"), TokenMint(b"a secret for the tests")
        )  # fmt: skip
        offer = Offer((EngineKind.ENGLISH,))
        gateway = Gateway(engines, offer, access, Metrics(), GatewayLimits(), tracer=tracer)
        app = http_app(gateway_routes(gateway.is_ready, gateway.metrics, access))
        port = await nursery.start(partial(gateway.run, app, "127.0.0.1", 0))
        audio = speech_like(6, pause_every=1, pause=2)
        conversation = await converse(f"ws://127.0.0.1:{port}/v3/ws", audio, sample_rate=16_000)
    nursery.cancel_scope.cancel()

    spans, _ = read_spans(folder)
    (session,) = named(spans, "session")
    (link,) = named(spans, "engine stream")
    (stream,) = named(spans, "stream")
    finalizations = named(spans, "finalize")
    assert {span["trace"] for span in spans} == {session["trace"]}
    assert (session["parent"], link["parent"]) == ("", session["id"])
    assert (stream["parent"], stream["service"]) == (link["id"], "engine")
    assert {span["parent"] for span in finalizations} == {session["id"]}
    kinds = [span["kind"] for span in (session, link, stream, finalizations[0])]
    assert kinds == [SERVER, CLIENT, SERVER, INTERNAL]
    assert len(conversation.finals) == 2
    segments = [span["attributes"]["ssasr.segment"] for span in finalizations]
    assert segments == list(range(len(segments)))
    assert len(segments) >= 2, "the silence at the end may be a segment of its own"
    begin = conversation.of_type("Begin")[0]
    assert session["attributes"] == {
        "ssasr.session_id": begin["id"],
        "ssasr.model_version": "en-default",
        "ssasr.speech_model": "universal-streaming-english",
        "ssasr.family": "U",
        "ssasr.audio_seconds": 6.0,
        "ssasr.turns": 2,
        "ssasr.words": sum(len(turn.split()) for turn in conversation.finals),
        "ssasr.cause": "terminated",
        "ssasr.close_code": 1000,
    }
    assert stream["attributes"]["ssasr.session_id"] == begin["id"]
    assert stream["attributes"]["ssasr.audio_seconds"] == 6.0
    assert not any(span["error"] or span["events"] for span in spans)


async def test_each_engine_that_carried_a_stream_is_there_with_why_it_was_taken(collected):
    where, folder = collected
    engines = MemoryEngines(deque([Fate("cut", 30), Fate("drain", 20)]))
    async with tracing.tracing(where, "gateway") as tracer:
        with tracing.working_under(tracer.begin("session")):
            resilient = ResilientEngines(engines, engines.metrics)
            opening = Open("session", StreamOptions())
            async with resilient.open_stream(VERSION, opening) as stream:
                await say(stream, 0, SAMPLES)
                await stream.send(Finalize(0, SAMPLES))
                await until(stream, Final)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.receive)  # nothing more comes
                    with trio.fail_after(60):
                        moved = engines.metrics.failovers.labels("draining")
                        while not moved._value.get():  # noqa: ASYNC110  nobody tells
                            await trio.sleep(0.01)
                    nursery.cancel_scope.cancel()
    streams = named(read_spans(folder)[0], "engine stream")
    streams.sort(key=lambda span: span["attributes"]["ssasr.attempt"])
    noted = [span["attributes"] for span in streams]
    assert [each["ssasr.attempt"] for each in noted] == [1, 2, 3]
    assert [each.get("ssasr.moved_because") for each in noted] == [None, "lost", "draining"]
    assert [each.get("ssasr.error") for each in noted] == ["EngineLost", None, None]
    assert [span["error"] for span in streams] == [True, False, False]
    assert all(each["ssasr.model"] == ScriptedRecognizer.name for each in noted)


async def test_only_what_is_allowed_can_be_noted(collected):
    where, folder = collected
    async with tracing.tracing(where, "gateway") as tracer:
        with tracing.working_under(tracer.begin("session")) as span:
            with pytest.raises(AssertionError, match="not to be exported"):
                span.note(text="hello")
            with pytest.raises(ValueError, match="marked"), tracing.child_span("finalize"):
                raise ValueError("a marked text")
    spans, everything = read_spans(folder)
    assert [span["attributes"] for span in spans] == [{"ssasr.error": "ValueError"}, {}]
    assert "marked" not in everything


def test_every_attribute_is_documented():
    shown = re.findall(r"^\| `ssasr\.(\w+)` \|", MONITORING.read_text(), re.MULTILINE)
    assert sorted(shown) == sorted(ATTRIBUTES)


async def test_nobody_waits_for_a_collector_that_is_not_there(capfd, monkeypatch):
    """Spans beyond the queue are dropped, the end is bounded, and there is one line about it."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", 0.3)
    with trio.fail_after(60):
        where = Destination(f"http://127.0.0.1:{free_port()}{tracing.PATH}")
        async with tracing.tracing(where, "gateway") as tracer:
            for _ in range(1_000):
                with tracing.working_under(tracer.begin("session")):
                    tracing.current().child("finalize").end()
    said = capfd.readouterr()
    text = said.err + said.out
    assert text.count("traces are not delivered") <= 1
    assert "Traceback" not in text
    assert "Queue full" not in text


async def test_a_collector_that_comes_and_goes_is_two_lines(capsys):
    from opentelemetry.sdk.trace.export import SpanExportResult

    from ssasr.telemetry.tracing_export import ReportingExporter

    class Flaky:
        results = [SpanExportResult.SUCCESS] + 3 * [SpanExportResult.FAILURE] + [
            SpanExportResult.SUCCESS] * 2  # fmt: skip

        def export(self, spans):
            return self.results.pop(0)

    exporter = ReportingExporter(Flaky())
    for _ in range(6):
        exporter.export([])
    said = capsys.readouterr().out
    assert said.count("traces are not delivered") == 1
    assert said.count("traces are delivered again") == 1


@pytest.mark.parametrize(
    ("endpoint", "environment", "expected"),
    [
        (None, {}, None),
        ("http://c:4318", {}, Destination("http://c:4318/v1/traces")),
        ("https://c/otlp/", {}, Destination("https://c/otlp/v1/traces")),
        ("http://c:4318/v1/traces", {}, Destination("http://c:4318/v1/traces")),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, Destination(None)),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318"}, Destination(None)),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "x", "OTEL_TRACES_EXPORTER": "none"}, None),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "x", "OTEL_SDK_DISABLED": "true"}, None),
        ("http://c", {"OTEL_SDK_DISABLED": "true"}, Destination("http://c/v1/traces")),
    ],
)
def test_destinations(endpoint, environment, expected):
    assert destination(endpoint, environment) == expected


@pytest.mark.parametrize("endpoint", ["c:4318", "grpc://c:4317", "http://", "http://me:pw@c:4318"])
def test_addresses_that_are_none(endpoint):
    with pytest.raises(StartRefused):
        destination(endpoint, {})


def test_nothing_is_imported_while_traces_are_off():
    script = (
        "import sys, ssasr.cli.commands, ssasr.cli.processes.all_in_one\n"
        "import ssasr.cli.processes.gateway, ssasr.cli.processes.engine\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.slow
def test_processes_export_what_they_did_before_they_end(tmp_path, jfk):
    with collector(tmp_path) as url:
        traced = {"SSASR_OTLP_ENDPOINT": url, "OTEL_RESOURCE_ATTRIBUTES": "deployment=test"}
        with running("serve", "--engine-kind", "scripted", **traced) as (program, port):
            trio.run(partial(converse, f"ws://127.0.0.1:{port}/v3/ws", jfk, sample_rate=16_000))
            assert program.stop() == 0
    spans, everything = read_spans(tmp_path)
    assert {span["name"] for span in spans} == {"session", "engine stream", "finalize"}
    assert {span["service"] for span in spans} == {"ssasr-gateway"}
    assert "deployment" in everything
    assert "/v1/traces" in everything


@pytest.mark.slow
def test_without_the_extra_the_start_is_refused(tmp_path):
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('not on this machine')")
    done = subprocess.run(
        [sys.executable, "-m", "ssasr", "gateway", "--asr-endpoint", "ws://127.0.0.1:1",
         "--otlp-endpoint", "http://127.0.0.1:4318", "--port", "0"],
        env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "pip install 'ssasr[otel]'" in done.stderr
