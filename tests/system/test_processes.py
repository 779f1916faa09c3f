"""Gateway and engine as processes of their own. The load balancer's part is in ``tests/lb``."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from time import monotonic, sleep
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest
import trio

from tests.harness.clients import Transcript, connect, converse, pieces, read_all, speech_like
from tests.harness.packages import optional_packages
from tests.harness.processes import Program, free_port, running

pytestmark = pytest.mark.slow

SPEECH = speech_like(8.0, pause_every=2.5, pause=1.5)
engine = partial(running, "engine", "--model", "english", "--engine-kind", "scripted")


@contextmanager
def pair(*engine_arguments):
    """An engine, a gateway in front of it, and the gateway's address."""
    with engine(*engine_arguments) as (program, port):
        endpoint = f"ws://127.0.0.1:{port}"
        with running("gateway", "--asr-endpoint", endpoint) as (gateway, public):
            yield program, port, gateway, f"ws://127.0.0.1:{public}/v3/ws"


def metric(url, name):
    """The sum of a metric over its labels."""
    with urlopen(url.replace("ws:", "http:").replace("/v3/ws", "/metrics"), timeout=30) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


async def speak(url, *, at=None, then=None, end=None):
    """The speech in real time; ``then()`` is called ``at`` seconds into it. ``end``: an event that
    it goes on for."""
    async with connect(url, sample_rate=16_000) as websocket:
        transcript = Transcript()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_all, websocket, transcript)
            started = trio.current_time()
            for number, piece in enumerate(pieces(SPEECH)):
                if at is not None and number == int(at * 10):
                    await trio.to_thread.run_sync(then)
                await websocket.send_message(piece)
                await trio.sleep_until(started + (number + 1) * 0.1)
            if end is not None:
                await end.wait()
            await websocket.send_message('{"type":"Terminate"}')
    return transcript


def texts(transcript):
    """Everything but the ids and how long it took."""
    kinds = {"Turn", "SpeechStarted"}
    return [m for m in transcript.messages if m["type"] in kinds], transcript.close_code


def test_a_gateway_starts_with_its_own_packages_alone_and_without_engines(tmp_path):
    missing = optional_packages()
    assert {"torch", "spacy", "phonenumbers", "av", "opentelemetry"} <= missing
    for package in missing:
        (tmp_path / f"{package}.py").write_text('raise ImportError("not on this machine")')
    nobody = f"ws://127.0.0.1:{free_port()}"
    environment = {"PYTHONPATH": str(tmp_path)}
    with running("gateway", "--asr-endpoint", nobody, ready=False, **environment) as (_, port):
        url = f"ws://127.0.0.1:{port}/v3/ws"
        with pytest.raises(OSError, match="503"):
            urlopen(f"http://127.0.0.1:{port}/ready", timeout=30)
        transcript = trio.run(partial(converse, url, SPEECH[:16_000], sample_rate=16_000))
    assert transcript.close_code == 1013
    assert [message["type"] for message in transcript.messages] == ["Error"]
    torch = subprocess.run(
        [sys.executable, "-c", "import torch"],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "not on this machine" in torch.stderr, "or the test proves nothing"


def test_a_killed_engine_costs_no_word():
    with pair() as (program, _, _, url):
        expected = trio.run(speak, url)
        successor = Program([*program.arguments])

        def kill():
            program.process.kill()
            program.process.wait()
            successor.start()

        try:
            transcript = trio.run(partial(speak, url, at=3.3, then=kill))
        finally:
            successor.process.kill()
            successor.wait()
        assert metric(url, "ssasr_failovers_total") == 1
    assert texts(transcript) == texts(expected)
    assert expected.close_code == 1000
    assert len(expected.finals) >= 2


def test_an_engine_that_is_stopped_and_goes_on_costs_no_word():
    """SIGSTOP: the socket stays open, and the kernel even accepts new connections."""
    with pair() as (program, _, _, url):
        expected = trio.run(speak, url)
        asleep = []

        def stop():
            program.process.send_signal(signal.SIGSTOP)
            wake = f"sleep 9; kill -CONT {program.process.pid}"
            asleep.append(subprocess.Popen(["/bin/sh", "-c", wake]))

        transcript = trio.run(partial(speak, url, at=3.3, then=stop))
        asleep[0].wait()
        assert metric(url, 'ssasr_failovers_total{reason="silent"}') == 1
    assert texts(transcript) == texts(expected)


def test_clients_beyond_capacity_are_rejected_at_once_and_nobody_else_notices():
    with pair("--max-streams", "2") as (_, _, _, url):
        refused = []

        async def main():
            transcripts, enough = [], trio.Event()

            async def one():
                transcripts.append(await speak(url, end=enough))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(one)
                nursery.start_soon(one)
                while await trio.to_thread.run_sync(metric, url, "ssasr_sessions ") < 2:
                    await trio.sleep(0.05)
                for _ in range(10):
                    started = trio.current_time()
                    transcript = await converse(url, SPEECH[:1_600], sample_rate=16_000)
                    refused.append(trio.current_time() - started)
                    assert transcript.close_code == 3009
                    await trio.sleep(0.2)
                enough.set()
            return transcripts

        first, second = trio.run(main)
        assert texts(first) == texts(second)
        assert first.close_code == 1000
        assert min(refused) < 1.0, "nothing is waited for"
        assert metric(url, "ssasr_failovers_total") == 0


def test_full_cpu_load_makes_no_false_timeouts():
    """Twice as many busy processes as there are cores, for longer than any deadline of the link."""
    burn = [sys.executable, "-c", "while True: pass"]
    with pair() as (_, _, _, url):
        expected = trio.run(speak, url)
        busy = [subprocess.Popen(burn) for _ in range(2 * (os.cpu_count() or 1))]
        try:
            transcript = trio.run(speak, url)
        finally:
            for process in busy:
                process.kill()
                process.wait()
        assert metric(url, "ssasr_failovers_total") == 0
    assert texts(transcript) == texts(expected)


def test_an_engine_drains_and_ends_with_0():
    with pair("--drain-seconds", "1") as (program, _, gateway, url):

        def stop():
            program.process.send_signal(signal.SIGTERM)

        async def main():
            with trio.move_on_after(6):
                await speak(url, at=2, then=stop)

        trio.run(main)
        assert program.wait() == 0
        assert "Ready to serve!" in program.stderr
        assert gateway.stop() == 0


DYING = """
import sys
from ssasr.engine.scripted import ScriptedRecognizer
from ssasr.cli.commands import main

def step(self, batch):
    if any(work.audio.size for work in batch):
        raise RuntimeError("device lost")
    return []

ScriptedRecognizer.step = step
main(sys.argv[1:])
"""


def test_a_dead_model_ends_its_process_at_once():
    port = free_port()
    command = [sys.executable, "-c", DYING, "engine", "--model", "english",
               "--engine-kind", "scripted", "--port", str(port)]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as dying:
        try:
            watch = Program([])
            watch.process = dying
            watch.wait_ready(port)
            endpoint = f"ws://127.0.0.1:{port}"
            with running("gateway", "--asr-endpoint", endpoint) as (_, public):

                async def main():
                    url = f"ws://127.0.0.1:{public}/v3/ws"
                    async with connect(url, sample_rate=16_000) as websocket:
                        await websocket.get_message()
                        await websocket.send_message(pieces(SPEECH)[0])
                        await websocket.send_message(pieces(SPEECH)[1])
                        started = trio.current_time()
                        await trio.to_thread.run_sync(dying.wait)
                        return trio.current_time() - started

                took = trio.run(main)
            assert dying.returncode == 1
            assert "device lost" in dying.stderr.read()
            assert took < 10.0, "no deadline is waited for"
        finally:
            dying.kill()


def test_the_last_line_says_what_was_lost(tmp_path):
    """Records that no disk took while the process was being stopped."""
    folder = tmp_path / "usage"
    scripted = ("--engine-kind", "scripted", "--engines", "english")
    with running("serve", *scripted, "--usage-dir", folder) as (program, port):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        folder.write_text("no folder any more, so nothing can be written there")
        transcript = trio.run(partial(converse, f"ws://127.0.0.1:{port}/v3/ws", SPEECH))
        assert transcript.close_code == 1000
        assert program.stop(signal.SIGTERM) == 0
    last = program.stderr.splitlines()[-1]
    assert "stopped" in last
    assert "usage_records_lost=1" in last


def test_metrics_on_a_port_of_their_own():
    own, engines_own = free_port(), free_port()
    with engine("--metrics-port", engines_own) as (_, port):
        endpoint = f"ws://127.0.0.1:{port}"
        options = ("--asr-endpoint", endpoint, "--metrics-port", own)
        with running("gateway", *options) as (_, public):
            for metrics, served in ((own, public), (engines_own, port)):
                with urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=30) as answer:
                    assert b"ssasr_build_info" in answer.read()
                for wrong in (f"{served}/metrics", f"{metrics}/health", f"{metrics}/v3/ws"):
                    with pytest.raises(HTTPError, match="404"):
                        urlopen(f"http://127.0.0.1:{wrong}", timeout=30)


def test_workers_share_the_port_of_metrics():
    own = free_port()
    options = ("--asr-endpoint", "ws://127.0.0.1:1", "--metrics-port", own, "--workers", "2")
    program = Program(["gateway", "--port", free_port(), *options]).start()
    deadline = monotonic() + 30
    while monotonic() < deadline:
        try:
            with urlopen(f"http://127.0.0.1:{own}/metrics", timeout=30) as answer:
                assert b"ssasr_sessions 0" in answer.read()
                break
        except URLError:  # not yet, or a worker is still to come
            sleep(0.1)
    assert program.stop(signal.SIGTERM) == 0
