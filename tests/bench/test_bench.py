"""``ssasr bench`` against a real server."""

import json
import threading

import pytest

from ssasr.bench.run import Search
from tests.cli.test_commands import ssasr
from tests.harness.processes import free_port, running, server

pytestmark = pytest.mark.slow


def test_a_run_reports_every_figure(tmp_path):
    with server("--engines", "english", "--engine-kind", "scripted") as (program, port):
        done = ssasr(
            "bench", "--endpoint", f"ws://127.0.0.1:{port}/v3/ws", "--streams", 3, "--seconds", 5,
            "--bound", 30, "--json", "--plots", tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
    (run,) = report["runs"]
    assert run["closes"] == {"1000": 3}
    assert run["problems"] == {}
    assert run["words"] > 3 * 20
    for name in ("first_partial", "first_seen", "final", "finalization", "drain"):
        latency = run["latencies"][name]
        assert latency["count"] >= 3
        # No server hears the future, and the bound above allows for a machine that is busy.
        assert -1.5 < latency["p50"] <= latency["p95"] <= latency["p99"] < 30
    assert run["wer"] > 0.5, "the scripted engine does not understand English"
    (process,) = [each for each in run["processes"] if each["pid"] == program.process.pid]
    assert process["name"] == "ssasr serve"
    assert 0 < process["cpu_us_per_message"] < 1e6
    assert process["rss"] > 1 << 20
    assert report["conditions"]["seed"] == 1
    assert (tmp_path / "latency-3.png").stat().st_size > 1_000


def test_more_streams_than_the_server_takes_are_beyond_the_bound():
    options = ("--engines", "english", "--engine-kind", "scripted", "--max-sessions", 3)
    with server(*options) as (_, port):
        done = ssasr(
            "bench", "--endpoint", f"ws://127.0.0.1:{port}/v3/ws", "--streams", 4, "--seconds", 1,
            "--bound", 30, "--json",
        )  # fmt: skip
    assert done.returncode == 1
    (run,) = json.loads(done.stdout)["runs"]
    assert run["closes"] == {"1000": 3, "3009": 1}
    assert "1 of 4 sessions did not end well" in run["failures"]


def test_an_engine_killed_meanwhile_costs_no_word():
    """As an operator does it, whose supervisor starts again what ends."""
    engine_port = free_port()
    engine = ("--model", "english", "--engine-kind", "scripted")
    with (
        running("engine", *engine, port=engine_port) as (program, _),
        running("gateway", "--asr-endpoint", f"ws://127.0.0.1:{engine_port}") as (_, port),
    ):
        stop = threading.Event()

        def supervise():
            while not stop.wait(0.05):
                if program.process.poll() is not None:
                    program.start()

        supervisor = threading.Thread(target=supervise)
        supervisor.start()
        try:
            done = ssasr(
                "bench", "--endpoint", f"ws://127.0.0.1:{port}/v3/ws", "--streams", 2,
                "--seconds", 5, "--faults", "kill@4",
                "--fault-target", f"--port {engine_port} --model english", "--json",
            )  # fmt: skip
        finally:
            stop.set()
            supervisor.join()
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["faults"] == {"kill": 1}
    assert report["codes"] == {"1000": 2}
    assert report["damage"]["words"] > 20
    assert report["damage"]["lost"] == report["damage"]["changed"] == 0
    assert "0 lost" in done.stderr


@pytest.mark.parametrize("most", [0, 1, 7, 8, 100, 333])
def test_the_search_ends_near_the_most_that_goes_well(most):
    search, tried = Search(8), []
    while search.streams is not None:
        tried.append(search.streams)
        search.note(search.streams <= most)
    assert search.good <= most
    assert most - search.good <= max(1, search.good // 10)
    assert len(tried) < 15


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["--streams", "0"], 2, "--streams"),
        (["--transcripts", "x"], 2, "--audio"),
        (["--message-ms", "20"], 2, "50"),
        (["--parameters", "x"], 2, "--parameters"),
        (["--parameters", "min_turn_silence=no"], 1, "min_turn_silence"),
        (["--endpoint", "ws://127.0.0.1:1/v3/ws"], 1, "no session"),
        (["--audio", "nowhere.wav"], 1, "nowhere.wav"),
        (["--faults", "kill"], 2, "kind@S"),
        (["--faults", "nginx@3"], 2, "nginx"),
        (["--faults", "kill@3", "--find-capacity"], 2, "--find-capacity"),
        (["--faults", "kill@3", "--soak", "1"], 2, "one at a time: --faults, --soak"),
        (["--soak", "0"], 2, "--soak: 0 minutes"),
        (["--soak", "1", "--endpoint", "ws://127.0.0.1:1/v3/ws"], 1, "no session"),
        (["--neighbours", "loud"], 2, "refused, deaf"),
        (["--neighbours", "deaf", "--endpoint", "ws://127.0.0.1:1/v3/ws"], 1, "no session"),
        (["--faults", "kill@3", "--fault-target", "no such thing"], 1, "no such thing"),
    ],
)
def test_what_cannot_be_run_is_one_line(arguments, status, word):
    done = ssasr("bench", *arguments)
    assert done.returncode == status
    assert word in done.stderr
    assert "Traceback" not in done.stderr
