"""The Compose file's own commands, environment and nginx configuration, as processes in a network
namespace; and that nothing of what they do leaves it."""

import json
import sys
from pathlib import Path

import pytest

from tests.docker import compose
from tests.harness.isolated import NAME_SERVER, Plan, Report, Service, can_isolate, run_isolated

pytestmark = [pytest.mark.slow, pytest.mark.nginx]

TOP = Path(__file__).parents[2]
SPEECH = TOP / "tests" / "data" / "speech.flac"


def names() -> dict[str, list[str]]:
    """An address for each service, as Docker's name server would say."""
    return {name: [f"127.0.1.{n}"] for n, name in enumerate(compose.load()["services"], 1)}


def services(
    run_dir: Path, settings: dict[str, str] | None = None, gateway: dict[str, str] | None = None
) -> list[Service]:
    """``settings``: what .env would hold. Engines first, as ``depends_on`` would not have it: then
    each is ready when the next asks."""
    described = compose.load(**settings or {})["services"]
    scripted = {"SSASR_ENGINE_KIND": "scripted", "SSASR_DRAIN_SECONDS": "1"}
    lb, public = described["streaming-asr-lb"], described["streaming-api"]
    return [
        compose.python_service(name, described[name], scripted)
        for name in ("streaming-asr-english", "streaming-asr-multilang")
    ] + [
        compose.nginx_service("streaming-asr-lb", lb, run_dir, NAME_SERVER),
        compose.python_service(
            "streaming-api", public, {"SSASR_DRAIN_SECONDS": "1"} | (gateway or {})
        ),
    ]


def transcribe(model: str) -> list[str]:
    return [
        sys.executable, "-m", "ssasr", "transcribe", str(SPEECH), "--json", "--pace", "fast",
        "--endpoint", "ws://streaming-api:8080/v3/ws", "--speech-model", model,
    ]  # fmt: skip


def fetch(url: str) -> list[str]:
    script = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
    return [sys.executable, "-c", script, url]


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Report:
    if not can_isolate():
        pytest.skip("needs the right to make network namespaces")
    run_dir = tmp_path_factory.mktemp("lb")
    commands = [
        transcribe("universal-streaming-english"),
        transcribe("u3-rt-pro"),
        fetch("http://streaming-asr-lb:80/nginx_health"),
        fetch("http://streaming-api:8080/metrics"),
        fetch("http://streaming-asr-english:50051/metrics"),
        [sys.executable, str(compose.DOCKER / "healthcheck.py"), "8080"],
        [sys.executable, str(compose.DOCKER / "healthcheck.py"), "9"],
    ]
    return run_isolated(Plan(names(), services(run_dir), commands))


def test_a_client_is_served_by_the_whole_stack(report: Report):
    for ran in report.commands[:2]:
        assert ran.status == 0, ran.errors
        messages = [json.loads(line) for line in ran.output.splitlines()]
        assert messages[0]["type"] == "Begin"
        assert messages[-1]["type"] == "Termination"
        assert any(m["type"] == "Turn" and m["end_of_turn"] for m in messages)


def test_each_model_is_served_by_its_own_engine(report: Report):
    access = [json.loads(line) for line in report.logs["streaming-asr-lb"].splitlines()
              if line.startswith("{")]  # fmt: skip
    streams = [line for line in access if line["path"] == "/v1/stream"]
    assert [(s["model_version"], s["engines"], s["status"]) for s in streams] == [
        ("en-default", "127.0.1.3:50051", 101),
        ("ml-default", "127.0.1.4:50052", 101),
    ]


def test_a_session_can_be_followed_through_all_logs(report: Report):
    def lines(name: str, event: str) -> list[dict]:
        found = [json.loads(line) for line in report.logs[name].splitlines() if line[:1] == "{"]
        return [line for line in found if line.get("event") == event or line.get("path") == event]

    through_nginx = lines("streaming-asr-lb", "/v1/stream")
    for at, model in enumerate(["english", "multilang"]):
        begun = lines("streaming-api", "session begun")[at]
        ended = lines("streaming-api", "session ended")[at]
        (stream,) = lines(f"streaming-asr-{model}", "stream ended")
        assert begun["session"] == ended["session"] == stream["session"]
        assert through_nginx[at]["session"] == ended["session"]
        assert through_nginx[at]["engines"] == ended["address"]
        assert ended["engine"] == stream["engine"]


def test_health_checks_tell_ready_from_not(report: Report):
    *_, health, gateway, english, good, bad = report.commands
    assert json.loads(health.output) == {"status": "ok"}
    assert "ssasr_session_ends_total" in gateway.output
    assert "ssasr_step_seconds" in english.output
    assert (good.status, bad.status) == (0, 1)
    assert "127.0.0.1:9/ready" in bad.errors


def test_every_process_stops_cleanly(report: Report):
    assert report.statuses == dict.fromkeys(report.statuses, 0)


def test_nothing_tried_to_leave(report: Report):
    assert report.leaving == []
    known = set(compose.load()["services"])
    assert set(report.questions) <= known, "no other name was even asked for"
    assert {"streaming-asr-english", "streaming-asr-lb"} <= set(report.questions)


def test_an_attempt_to_leave_is_seen(tmp_path: Path):
    """The check above can fail: a process that does call out is noticed."""
    if not can_isolate():
        pytest.skip("needs the right to make network namespaces")
    call = (
        "import socket\n"
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.7', 53))\n"
        "s = socket.socket(); s.settimeout(0.2)\n"
        "try: s.connect(('198.51.100.9', 443))\n"
        "except TimeoutError: pass\n"
        "try: socket.getaddrinfo('telemetry.example', 443)\n"
        "except OSError: pass\n"
    )
    report = run_isolated(Plan({}, [], [[sys.executable, "-c", call]]))
    assert "udp 192.0.2.7:53" in report.leaving
    assert "tcp 198.51.100.9:443" in report.leaving
    assert "telemetry.example" in report.questions
