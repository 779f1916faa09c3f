"""One session in virtual time: its channels, deadlines and ends."""

import json

import numpy as np
import pytest
import trio
from attrs import evolve
from trio_websocket import CloseReason, ConnectionClosed

from ssasr.audio.decoding import make_decoder
from ssasr.protocol.close_codes import EndCause
from ssasr.protocol.messages import Turn
from ssasr.protocol.parameters import parse_parameters
from ssasr.session.session import SEND_DEADLINE, Session, SessionTerms
from ssasr.telemetry.metrics import Metrics
from tests.harness.clients import pieces, speech_like

SPEECH = speech_like(6.0, pause_every=2.0, pause=2.0)


class FakeWebSocket:
    """The client's end in memory. ``blocked``: the client reads nothing."""

    def __init__(self, *, blocked=False):
        self.to_server, self._inbox = trio.open_memory_channel(10_000)
        self.said = []
        self.closed_with = None
        self._blocked = blocked

    async def get_message(self):
        try:
            return await self._inbox.receive()
        except trio.EndOfChannel:
            raise ConnectionClosed(CloseReason(1000, None)) from None

    def listen(self, sink):
        pass

    @property
    def clear(self):
        return not self._blocked

    def offer(self, message):
        self.said.append(json.loads(message))

    async def send_message(self, message):
        if self._blocked and len(self.said) >= 1:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        self.said.append(json.loads(message))

    async def aclose(self, code=1000, reason=None):
        await trio.lowlevel.checkpoint()
        self.closed_with = code

    @property
    def types(self):
        return [message["type"] for message in self.said]

    @property
    def finals(self):
        return [m["transcript"] for m in self.said if m.get("end_of_turn")]


def make_session(
    engines, websocket, query="sample_rate=16000", max_duration=10_800.0, redactor=None
):
    parameters = parse_parameters(query)
    terms = SessionTerms(
        "an-id", parameters, "en-default", make_decoder(parameters), max_duration, 1_700_000_000,
        redactor,
    )  # fmt: skip
    return Session(terms, websocket, engines, Metrics())


def send_now(websocket, *frames):
    for frame in frames:
        message = frame if isinstance(frame, bytes) else json.dumps(frame)
        websocket.to_server.send_nowait(message)


async def test_terminate_brings_the_last_turn_then_termination(engines, autojump_clock):
    websocket = FakeWebSocket()
    send_now(websocket, *pieces(SPEECH), {"type": "Terminate"})
    assert await make_session(engines, websocket).run() is EndCause.TERMINATED
    assert websocket.types[0] == "Begin"
    assert websocket.types[-2:] == ["Turn", "Termination"]
    assert len(websocket.finals) == 2
    assert websocket.closed_with == 1000


async def test_terminate_0_ms_after_the_last_sample_of_200_utterances(engines, autojump_clock):
    for seed in range(200):
        length = 4_800 + seed * 173
        utterance = speech_like(length / 16_000, seed=seed)[:length]
        websocket = FakeWebSocket()
        send_now(websocket, *pieces(utterance), {"type": "Terminate"})
        await make_session(engines, websocket).run()
        last = websocket.said[-2]
        assert websocket.types[-2:] == ["Turn", "Termination"]
        assert last["end_of_turn"]
        heard_until_ms = length // 512 * 512 / 16
        assert last["words"][-1]["end"] == int(heard_until_ms)
        assert websocket.closed_with == 1000


async def test_any_chunking_gives_the_same_finals(engines, autojump_clock):
    finals = set()
    for size in (800, 1_023, 1_600, 16_000):
        websocket = FakeWebSocket()
        send_now(websocket, *pieces(SPEECH, size), {"type": "Terminate"})
        await make_session(engines, websocket).run()
        finals.add(tuple(websocket.finals))
    assert len(finals) == 1


async def test_force_endpoint_ends_the_turn_without_more_audio(engines, autojump_clock, nursery):
    websocket = FakeWebSocket()
    nursery.start_soon(make_session(engines, websocket).run)
    send_now(websocket, *pieces(SPEECH[:16_000]), {"type": "ForceEndpoint"})
    before = trio.current_time()
    with trio.fail_after(1):
        while not websocket.finals:
            await trio.sleep(0.001)
    assert trio.current_time() - before < 0.15
    nursery.cancel_scope.cancel()


async def test_a_client_that_stops_sending_has_its_turn_ended(engines, autojump_clock, nursery):
    websocket = FakeWebSocket()
    nursery.start_soon(make_session(engines, websocket).run)
    send_now(websocket, *pieces(SPEECH[:16_000]))
    await trio.sleep(1.0)
    assert not websocket.finals
    await trio.sleep(5.0)
    assert len(websocket.finals) == 1
    nursery.cancel_scope.cancel()


async def test_inactivity(engines, autojump_clock):
    websocket = FakeWebSocket()
    session = make_session(engines, websocket, "sample_rate=16000&inactivity_timeout=5")
    started = trio.current_time()
    assert await session.run() is EndCause.INACTIVE
    assert trio.current_time() - started == pytest.approx(5.0, abs=0.1)
    assert websocket.said[-1]["error_code"] == 3006
    assert websocket.closed_with == 3006


async def test_keep_alive_restarts_the_inactivity_timer(engines, autojump_clock, nursery):
    websocket = FakeWebSocket()
    session = make_session(engines, websocket, "sample_rate=16000&inactivity_timeout=5")
    nursery.start_soon(session.run)
    for _ in range(5):
        await trio.sleep(4)
        send_now(websocket, {"type": "KeepAlive"})
    assert websocket.closed_with is None
    await trio.sleep(6)
    assert websocket.closed_with == 3006


async def test_expiry_says_everything_and_closes_3008_without_an_error(engines, autojump_clock):
    websocket = FakeWebSocket()
    send_now(websocket, *pieces(SPEECH[:32_000]))
    session = make_session(engines, websocket, max_duration=1.0)
    assert await session.run() is EndCause.EXPIRED
    assert websocket.types[-1] == "Termination"
    assert "Error" not in websocket.types
    assert len(websocket.finals) == 1
    assert websocket.closed_with == 3008


async def test_a_client_that_reads_nothing_is_given_up(engines, autojump_clock):
    websocket = FakeWebSocket(blocked=True)
    send_now(websocket, *pieces(SPEECH))
    started = trio.current_time()
    assert await make_session(engines, websocket).run() is EndCause.CLIENT_VANISHED
    assert trio.current_time() - started < SEND_DEADLINE + 5


async def test_a_fault_among_words_still_closes_with_its_code_race(engines, autojump_clock):
    """The fault ends the emitter when it is about to send, or in the middle of a frame. Cut there,
    the client would see the connection end without a word."""
    for length in range(8_000, 96_000, 1_600):
        websocket = FakeWebSocket()
        send_now(websocket, *pieces(SPEECH[:length]), {"type": "nonsense"})
        assert await make_session(engines, websocket).run() is EndCause.INVALID_INPUT
        assert websocket.types[-1] == "Error", length
        assert websocket.closed_with == 3006


async def test_a_client_that_leaves_frees_its_stream(engines, autojump_clock):
    for _ in range(10):  # more than the engine has slots
        websocket = FakeWebSocket()
        send_now(websocket, *pieces(SPEECH[:8_000]))
        websocket.to_server.close()
        assert await make_session(engines, websocket).run() is EndCause.CLIENT_CLOSED
    host = engines.hosts["en-default"]
    assert host.statistics().scheduler.streams == 0


async def test_cancelled_anywhere_it_leaves_nothing_behind(engines, autojump_clock):
    for checkpoints in range(0, 400, 7):
        websocket = FakeWebSocket()
        send_now(websocket, *pieces(SPEECH[:8_000]), {"type": "Terminate"})
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(make_session(engines, websocket).run)
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        host = engines.hosts["en-default"]
        assert host.statistics().scheduler.streams == 0


async def test_silence_says_nothing(engines, autojump_clock):
    websocket = FakeWebSocket()
    send_now(websocket, *pieces(np.zeros(30 * 16_000, np.int16)), {"type": "Terminate"})
    await make_session(engines, websocket).run()
    assert websocket.types == ["Begin", "Termination"]


async def test_heartbeats_only_when_asked_for(engines, autojump_clock, nursery):
    asked, not_asked = FakeWebSocket(), FakeWebSocket()
    query = "sample_rate=16000&session_heartbeat=true"
    nursery.start_soon(make_session(engines, asked, query).run)
    nursery.start_soon(make_session(engines, not_asked).run)
    for websocket in (asked, not_asked):
        send_now(websocket, *pieces(SPEECH))
    await trio.sleep(11)
    assert asked.types.count("Heartbeat") == 2
    first = next(message for message in asked.said if message["type"] == "Heartbeat")
    assert first["total_audio_received_ms"] == 6_000
    assert "Heartbeat" not in not_asked.types
    nursery.cancel_scope.cancel()


async def test_begin_names_the_model_and_what_was_asked_for(engines, autojump_clock):
    websocket = FakeWebSocket()
    send_now(websocket, {"type": "Terminate"})
    await make_session(engines, websocket, "sample_rate=16000&filter_profanity=true").run()
    configuration = websocket.said[0]["configuration"]
    assert configuration == {"model": "scripted", "filter_profanity": True}


async def test_live_configuration_from_the_next_audio_on(engines, autojump_clock):
    websocket = FakeWebSocket()
    update = {"type": "UpdateConfiguration", "max_turn_silence": 5_000, "vad_threshold": None}
    send_now(websocket, update, *pieces(SPEECH), {"type": "Terminate"})
    await make_session(engines, websocket, "sample_rate=16000&min_turn_silence=5000").run()
    assert len(websocket.finals) == 1  # the pause of 2 s no longer ends a turn


async def test_nothing_is_sent_that_the_redactor_has_not_seen(engines, autojump_clock):
    async def redactor(message):
        await trio.sleep(0.1)
        if isinstance(message, Turn):
            return evolve(message, transcript="hidden", utterance="hidden", words=())
        return message

    websocket = FakeWebSocket()
    send_now(websocket, *pieces(SPEECH), {"type": "Terminate"})
    session = make_session(engines, websocket, "redact_pii=true", redactor=redactor)
    assert await session.run() is EndCause.TERMINATED
    assert websocket.types[0] == "Begin"
    assert websocket.said[0]["configuration"]["redact_pii"] is True
    assert websocket.types[-1] == "Termination"
    turns = websocket.types.count("Turn")
    assert websocket.finals == ["hidden"] * turns, "and no partials"


async def test_a_session_that_asks_for_redaction_has_a_redactor(engines):
    with pytest.raises(ValueError, match="redactor"):
        make_session(engines, FakeWebSocket(), "redact_pii=true")
