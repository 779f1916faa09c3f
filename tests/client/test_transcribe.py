"""A transcript is whole or it is said that it is not: servers that stop, expire, fall silent."""

import json
import signal
import subprocess
import sys

import pytest
import soundfile

from ssasr.client import transcribe as client
from ssasr.client.connection import ClientError
from tests.harness.clients import speech_like
from tests.harness.processes import server

pytestmark = pytest.mark.slow
RATE = 16_000
SCRIPTED = ("--engine-kind", "scripted", "--engines", "english")


@pytest.fixture
def talk(tmp_path):
    """Six seconds with pauses."""
    path = tmp_path / "talk.wav"
    soundfile.write(path, speech_like(6.0, pause_every=0.8, pause=0.7), RATE)
    return path


def command(port, *arguments):
    return [sys.executable, "-m", "ssasr", "transcribe", *map(str, arguments),
            "--endpoint", f"ws://127.0.0.1:{port}/v3/ws"]  # fmt: skip


def test_a_recording_longer_than_a_session_goes_on_in_further_ones(talk):
    with server(*SCRIPTED, "--max-duration", "4") as (program, port):
        result = subprocess.run(
            command(port, talk, "--json"), capture_output=True, text=True, timeout=60
        )
        program.stop()
        assert program.stderr.count("session ended") >= 2
    assert (result.returncode, result.stderr) == (0, "")
    messages = [json.loads(line) for line in result.stdout.splitlines()]
    types = [message["type"] for message in messages]
    assert (types.count("Begin"), types.count("Termination")) == (1, 1)
    assert types[0], types[-1] == ("Begin", "Termination")
    assert messages[-1]["audio_duration_seconds"] in (5, 6)
    finals = [message for message in messages if message.get("end_of_turn")]
    orders = [turn["turn_order"] for turn in finals]
    assert sorted(set(orders)) == list(range(max(orders) + 1))
    words = [word for turn in finals for word in turn["words"]]
    assert [word["start"] for word in words] == sorted(word["start"] for word in words)
    assert words[-1]["end"] > 4_500, "times go on"


def test_a_server_that_stops_leaves_a_partial_transcript_and_says_so(talk, tmp_path):
    out = tmp_path / "out.srt"
    with server(*SCRIPTED, "--drain-seconds", "0") as (program, port):
        running = subprocess.Popen(command(port, talk, "--output", out), stderr=subprocess.PIPE)
        while "Turn" not in program.stderr and running.poll() is None:
            try:
                running.wait(3)
            except subprocess.TimeoutExpired:
                break
        program.process.send_signal(signal.SIGTERM)
        _, stderr = running.communicate(timeout=30)
    assert running.returncode == 1
    assert b"1001" in stderr
    assert b"incomplete" in stderr
    assert not out.exists()
    assert (tmp_path / "out.partial.srt").read_text()


async def test_a_server_that_falls_silent_is_not_waited_for(talk, monkeypatch):
    monkeypatch.setattr(client, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(client, "PING_SECONDS", 0.2)
    with server(*SCRIPTED) as (program, port):
        url = f"ws://127.0.0.1:{port}/v3/ws"
        request = client.Request(str(talk), url, "self-hosted", "fast", {})

        def stop(message):
            program.process.send_signal(signal.SIGSTOP)

        with pytest.raises(ClientError, match="silent"):
            await client.stream_file(request, stop)


def test_standard_input(talk):
    with server(*SCRIPTED) as (_, port):
        given = command(port, "-", "--pace", "fast", "--format", "text")
        with talk.open("rb") as file:
            piped = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE)
            result = subprocess.run(
                given, stdin=piped.stdout, capture_output=True, text=True, timeout=60
            )
            piped.communicate()
        named = subprocess.run(
            command(port, talk, "--pace", "fast", "--format", "text"),
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert result.returncode == 0
    assert result.stdout == named.stdout
