"""OpenAI's realtime protocol as clients speak it that none of us wrote: the SDK, and the services
of two agent frameworks, unmodified, against a running server."""

import asyncio
import base64
import json
import os
import subprocess
from pathlib import Path

import openai
import pytest
import websockets

from tests.harness.clients import pieces, speech_like
from tests.harness.processes import server

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SPEECH = speech_like(4.5, pause_every=1.5, pause=1.5)
SERVICES = Path(__file__).with_name("openai_services.py")


@pytest.fixture(scope="module")
def port():
    with server("--engine-kind", "scripted") as (_, port):
        yield port


def client(port):
    return openai.AsyncOpenAI(api_key="self-hosted", base_url=f"http://127.0.0.1:{port}/v1")


def audio():
    """16 kHz sent as if it were 24."""
    return [base64.b64encode(piece).decode() for piece in pieces(SPEECH, 2_400)]


async def transcribe(port, detection, include=()):
    """The events of a session with the SDK, until two items are completed."""
    seen = []
    connecting = client(port).realtime.connect(extra_query={"intent": "transcription"})
    async with asyncio.timeout(60), connecting as connection:
        transcription = {"model": "gpt-4o-transcribe", "language": "en"}
        settings = {"transcription": transcription, "turn_detection": detection}
        await connection.session.update(
            session={"type": "transcription", "include": include, "audio": {"input": settings}}
        )
        for _ in range(1 if detection else 2):
            for piece in audio():
                await connection.input_audio_buffer.append(audio=piece)
            if detection is None:
                await connection.input_audio_buffer.commit()
        async for event in connection:
            seen.append(event)
            if sum(each.type.endswith(".completed") for each in seen) == 2:
                break
    return seen


@pytest.mark.parametrize("detection", [{"type": "server_vad"}, None])
def test_openai_sdk(port, detection):
    include = ["item.input_audio_transcription.logprobs"]
    seen = asyncio.run(transcribe(port, detection, include))
    assert [each.type for each in seen[:2]] == ["session.created", "session.updated"]
    assert seen[1].session.audio.input.transcription.model == "gpt-4o-transcribe"
    completed = [each for each in seen if each.type.endswith(".completed")]
    committed = [each for each in seen if each.type.endswith(".committed")]
    assert [each.item_id for each in completed] == [each.item_id for each in committed]
    assert committed[1].previous_item_id == committed[0].item_id
    for item in completed:
        deltas = [each.delta for each in seen if each.type.endswith(".delta")
                  and each.item_id == item.item_id]  # fmt: skip
        assert "".join(deltas) == item.transcript != ""
        assert item.usage.type == "duration"
        assert item.usage.seconds > 0.9
        assert len(item.logprobs) == len(item.transcript.split())
    started = [each for each in seen if each.type.endswith("speech_started")]
    assert len(started) == (2 if detection else 0)


def test_openai_sdk_refused(port):
    async def open_with(key):
        async with openai.AsyncOpenAI(
            api_key=key, base_url=f"http://127.0.0.1:{port}/v1"
        ).realtime.connect(extra_query={"intent": "transcription"}):
            pass

    with pytest.raises(websockets.InvalidStatus) as refused:
        asyncio.run(open_with("wrong"))
    assert refused.value.response.status_code == 401


def test_a_client_secret_of_the_sdk_opens_a_browsers_session(port):
    async def session():
        async with client(port) as api:
            secret = await api.realtime.client_secrets.create(
                expires_after={"anchor": "created_at", "seconds": 30},
                session={"type": "transcription", "audio": {"input": {"turn_detection": None}}},
            )
        offered = ["realtime", f"openai-insecure-api-key.{secret.value}"]
        url = f"ws://127.0.0.1:{port}/v1/realtime"
        async with websockets.connect(url, subprotocols=offered) as connection:
            return secret, json.loads(await connection.recv()), connection.subprotocol

    secret, created, subprotocol = asyncio.run(session())
    assert subprotocol == "realtime"
    assert created["session"]["audio"]["input"]["turn_detection"] is None
    assert secret.session.type == "transcription"


def test_services_of_agent_frameworks(port):
    """At the same time, because each of them takes as long as the recording."""
    default = ROOT / ".venv" / "frameworks" / "bin" / "python"
    python = Path(os.environ.get("FRAMEWORKS_PYTHON", default))
    assert python.exists(), f"{python} is missing: `make test` makes it"
    recording = ROOT / "tests" / "data" / "speech.flac"
    running = [
        subprocess.Popen(
            [python, SERVICES, service, recording, str(port)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for service in ("pipecat", "livekit")
    ]  # fmt: skip
    for process in running:
        try:
            output, errors = process.communicate(timeout=90)
        finally:
            process.kill()
        assert process.returncode == 0, errors
        finals = [line for line in output.splitlines() if line.startswith("final ")]
        assert sum(len(line.split()) - 1 for line in finals) >= 10, errors
