"""Client libraries that none of us wrote, unmodified, against a running server."""

import asyncio
import json
import threading

import numpy as np
import pytest
import websockets
from assemblyai.streaming.v3 import (
    AsyncStreamingClient,
    StreamingClient,
    StreamingClientOptions,
    StreamingEvents,
    StreamingParameters,
)

from tests.harness.clients import pieces, speech_like
from tests.harness.processes import server

SPEECH = speech_like(7.0)

# The SDK uses its WebSocket library in a way that this library has deprecated.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def port():
    with server("--engine-kind", "scripted") as (_, port):
        yield port


def test_assemblyai_sdk_threaded(port):
    seen = []
    ended = threading.Event()
    client = StreamingClient(
        StreamingClientOptions(api_key="self-hosted", api_host=f"ws://127.0.0.1:{port}")
    )
    client.on(StreamingEvents.Begin, lambda _, event: seen.append(event))
    client.on(StreamingEvents.Turn, lambda _, event: seen.append(event))
    client.on(StreamingEvents.Error, lambda _, error: seen.append(error))

    def terminated(_, event):
        seen.append(event)
        ended.set()

    client.on(StreamingEvents.Termination, terminated)
    client.connect(StreamingParameters(sample_rate=16_000, format_turns=True))
    client.stream(iter(pieces(SPEECH)))
    client.disconnect(terminate=True)
    assert ended.wait(60)
    check_session(seen)


def test_assemblyai_sdk_asyncio(port):
    async def session():
        seen = []
        client = AsyncStreamingClient(
            StreamingClientOptions(api_key="self-hosted", api_host=f"ws://127.0.0.1:{port}")
        )
        for event in (
            StreamingEvents.Begin,
            StreamingEvents.Turn,
            StreamingEvents.Error,
            StreamingEvents.Termination,
        ):
            client.on(event, lambda _, event_data: seen.append(event_data))
        await client.connect(StreamingParameters(sample_rate=16_000, format_turns=True))
        for piece in pieces(SPEECH):
            await client.stream(piece)
        await client.disconnect(terminate=True)
        return seen

    check_session(asyncio.run(session()))


def tone(pitch, seconds):
    times = np.arange(int(seconds * 16_000)) / 16_000
    return np.round(8_000 * np.sin(2 * np.pi * pitch * times))


def test_assemblyai_sdk_with_speakers(port):
    """Somebody says little, somebody else more, and the first comes back: two labels, and what was
    pending is revised."""
    silence = np.zeros(2 * 16_000)
    talk = np.concatenate(
        [tone(200, 0.7), silence, tone(1_600, 3.0), silence, tone(200, 3.0), silence]
    )
    seen = []
    ended = threading.Event()
    client = StreamingClient(
        StreamingClientOptions(api_key="self-hosted", api_host=f"ws://127.0.0.1:{port}")
    )
    for event in (StreamingEvents.Begin, StreamingEvents.Turn, StreamingEvents.SpeakerRevision):
        client.on(event, lambda _, last: seen.append(last))
    client.on(StreamingEvents.Error, lambda _, error: seen.append(error))
    client.on(StreamingEvents.Termination, lambda _, last: (seen.append(last), ended.set()))
    client.connect(StreamingParameters(sample_rate=16_000, speaker_labels=True))
    client.stream(iter(pieces(talk)))
    client.disconnect(terminate=True)
    assert ended.wait(60)
    turns = [each for each in seen if type(each).__name__ == "TurnEvent" and each.end_of_turn]
    assert [turn.speaker_label for turn in turns] == ["PENDING", "A", "B"]
    assert all({word.speaker for word in turn.words} == {turn.speaker_label} for turn in turns)
    (revision,) = [each for each in seen if type(each).__name__ == "SpeakerRevisionEvent"]
    assert seen.index(revision) == len(seen) - 2
    (item,) = revision.revisions
    assert (item.turn_order, item.speaker_label) == (0, "B")
    assert [word.text for word in item.words] == [word.text for word in turns[0].words]


def check_session(seen):
    names = [type(event).__name__ for event in seen]
    assert names[0] == "BeginEvent"
    assert names[-1] == "TerminationEvent"
    assert set(names[1:-1]) == {"TurnEvent"}
    finals = [event for event in seen[1:-1] if event.end_of_turn]
    assert [event.turn_order for event in finals] == [0, 1]
    assert all(event.turn_is_formatted and event.transcript for event in finals)
    assert seen[-1].audio_duration_seconds == 7


def test_plain_websockets_client(port):
    async def session():
        url = f"ws://127.0.0.1:{port}/?sample_rate=16000&format_turns=true"
        headers = {"Authorization": "self-hosted"}
        async with websockets.connect(url, additional_headers=headers) as websocket:
            for piece in pieces(SPEECH):
                await websocket.send(piece)
            await websocket.send(json.dumps({"type": "Terminate"}))
            messages = [json.loads(text) async for text in websocket]
            return messages, websocket.close_code

    messages, code = asyncio.run(session())
    assert code == 1000
    assert messages[0]["type"] == "Begin"
    assert messages[-1]["type"] == "Termination"
    assert sum(message.get("end_of_turn", False) for message in messages) == 2
