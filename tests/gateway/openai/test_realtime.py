"""The realtime endpoint over real sockets: who may connect, and sessions from end to end."""

import base64
import json

import numpy as np
import pytest
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected

from ssasr.gateway.openai.models import ModelNames
from ssasr.gateway.openai.realtime import PATH, RealtimeHandler
from ssasr.net.websocket_client import connect_websocket
from tests.harness.clients import pieces, speech_like

TRANSCRIPTION = "conversation.item.input_audio_transcription"
SPEECH = speech_like(5.0, pause_every=1.5, pause=1.0)


@pytest.fixture
def address(served):
    served.gateway.handlers[PATH] = RealtimeHandler(
        served.gateway, ModelNames(served.gateway.offer.kinds)
    ).serve
    return f"ws://127.0.0.1:{served.port}{PATH}"


def open_session(address, query="?intent=transcription", key="Bearer self-hosted", **options):
    headers = [] if key is None else [(b"Authorization", key.encode())]
    return connect_websocket(address + query, headers=headers, unread=4_096, **options)


def update(**audio_input):
    session = {"type": "transcription", "audio": {"input": audio_input}}
    return json.dumps({"type": "session.update", "session": session})


def appended(samples):
    """PCM at 16 kHz sent as if it were 24: the words are nonsense anyway."""
    for piece in pieces(samples, 2_400):
        audio = base64.b64encode(piece).decode()
        yield json.dumps({"type": "input_audio_buffer.append", "audio": audio})


async def read_until(websocket, kind, count=1):
    events = []
    with trio.fail_after(60):
        while sum(each["type"] == kind for each in events) < count:
            events.append(json.loads(await websocket.get_message()))
    return events


async def test_a_session_whose_turns_the_server_ends(address):
    async with open_session(address) as websocket:
        await websocket.send_message(update(turn_detection={"type": "server_vad"}))
        for frame in appended(SPEECH):
            await websocket.send_message(frame)
        events = await read_until(websocket, f"{TRANSCRIPTION}.completed", 2)
    kinds = [each["type"] for each in events]
    assert kinds[:3] == ["session.created", "session.updated", "input_audio_buffer.speech_started"]
    assert kinds.count("input_audio_buffer.committed") == 2
    for completed in (each for each in events if each["type"].endswith("completed")):
        item = completed["item_id"]
        deltas = [each["delta"] for each in events if "delta" in each and each["item_id"] == item]
        assert "".join(deltas) == completed["transcript"] != ""


async def test_silence_is_reported_once_it_has_the_length_asked_for(address):
    async with open_session(address) as websocket:
        detection = {"type": "server_vad", "idle_timeout_ms": 2_000}
        await websocket.send_message(update(turn_detection=detection))
        for frame in appended(np.zeros(80_000, np.int16)):
            await websocket.send_message(frame)
        events = await read_until(websocket, f"{TRANSCRIPTION}.completed")
    over, committed, completed = events[-3:]
    assert over["type"] == "input_audio_buffer.timeout_triggered"
    assert 2_000 <= over["audio_end_ms"] - over["audio_start_ms"] <= 3_000
    assert over["item_id"] == committed["item_id"] == completed["item_id"]


async def test_a_session_whose_turns_the_client_ends(address):
    async with open_session(address) as websocket:
        await websocket.send_message(update(turn_detection=None))
        for _ in range(2):
            for frame in appended(SPEECH):
                await websocket.send_message(frame)
            await websocket.send_message('{"type": "input_audio_buffer.commit"}')
        for frame in appended(np.zeros(16_000, np.int16)):
            await websocket.send_message(frame)
        await websocket.send_message('{"type": "input_audio_buffer.commit"}')
        events = await read_until(websocket, f"{TRANSCRIPTION}.completed", 3)
    assert not any("speech_st" in each["type"] for each in events)
    completed = [each for each in events if each["type"].endswith("completed")]
    assert [bool(each["transcript"]) for each in completed] == [True, True, False]
    assert completed[0]["usage"]["seconds"] == round(len(SPEECH) / 24_000, 3)


async def test_a_session_begins_without_settings(address):
    async with open_session(address) as websocket:
        for frame in appended(SPEECH):
            await websocket.send_message(frame)
        events = await read_until(websocket, f"{TRANSCRIPTION}.completed")
    assert events[0]["type"] == "session.created"


async def test_a_browser_sends_its_key_as_a_subprotocol(address):
    offered = ["realtime", "openai-insecure-api-key.self-hosted"]
    async with open_session(address, key=None, subprotocols=offered) as websocket:
        assert websocket.subprotocol == "realtime"
        await read_until(websocket, "session.created")


@pytest.mark.parametrize(
    ("query", "key", "status", "code"),
    [
        ("?intent=transcription", "Bearer wrong", 401, "invalid_api_key"),
        ("?intent=transcription", None, 401, "invalid_api_key"),
        ("?model=gpt-realtime", "Bearer self-hosted", 400, "invalid_intent"),
    ],
)
async def test_refusals_are_answers_to_the_handshake(address, query, key, status, code):
    with pytest.raises(ConnectionRejected) as refused:
        async with open_session(address, query, key):
            pass
    assert refused.value.status_code == status
    assert json.loads(refused.value.body)["error"]["code"] == code


async def test_places_are_counted_before_a_session_begins_and_given_back(address, served):
    async with trio.open_nursery() as nursery:
        for _ in range(served.gateway.limits.max_sessions):
            await nursery.start(hold, address)
        with pytest.raises(ConnectionRejected) as refused:
            async with open_session(address):
                pass
        assert refused.value.status_code == 429
        nursery.cancel_scope.cancel()
    with trio.fail_after(60):
        while served.gateway.access.quota.open():
            await trio.sleep(0.01)


async def hold(address, *, task_status):
    async with open_session(address) as websocket:
        await read_until(websocket, "session.created")
        task_status.started()
        await trio.sleep_forever()


async def test_a_drain_closes_whoever_has_not_begun(address, served):
    async with open_session(address) as websocket:
        await read_until(websocket, "session.created")
        served.gateway.draining.set()
        with pytest.raises(ConnectionClosed) as closed, trio.fail_after(60):
            while True:
                await websocket.get_message()
    assert closed.value.reason.code == 1001


async def test_what_breaks_the_rules_beyond_an_answer_closes(address):
    async with open_session(address) as websocket:
        await websocket.send_message("x" * ((1 << 20) + 2))
        events = []
        with pytest.raises(ConnectionClosed) as closed, trio.fail_after(60):
            while True:
                events.append(json.loads(await websocket.get_message()))
    assert closed.value.reason.code == 1009
    assert events[-1]["type"] == "error"
