"""One session in virtual time: its channels, deadlines and ends."""

import json
from contextlib import asynccontextmanager
from functools import partial

import numpy as np
import pytest
import trio
from attrs import evolve, frozen
from trio.testing import memory_stream_one_way_pair

from ssasr.audio.decoding import make_decoder
from ssasr.errors import EngineBusy, EngineLost, EngineUnavailable
from ssasr.net.frames import NO_MASK, Close, FrameReader, encode_close, encode_message
from ssasr.net.websocket import CONTROL_LIMIT, FLOODING_READ_SIZE, READ_SIZE, WebSocket
from ssasr.protocol.client_link import ConfigurationUpdated
from ssasr.protocol.close_codes import END_CAUSES, EndCause
from ssasr.protocol.messages import Turn
from ssasr.protocol.parameters import parse_parameters
from ssasr.protocol.recognition import Audio, Final
from ssasr.routing.engine_stream import EngineSilent
from ssasr.session.companion import Companion
from ssasr.session.inference import Settings
from ssasr.session.session import (
    CONFIGURATION,
    CONTROL,
    SEND_DEADLINE,
    Session,
    SessionTerms,
    weigh_input,
    weigh_packet,
)
from ssasr.telemetry.metrics import Metrics
from tests.harness.clients import pieces, speech_like

SPEECH = speech_like(6.0, pause_every=2.0, pause=2.0)


class Client:
    """The client's end of a real ``WebSocket`` on a stream in memory. ``blocked``: it reads nothing
    after Begin."""

    def __init__(self, nursery, *, blocked=False):
        to_client, self._stream = memory_stream_one_way_pair()
        self._to_server, from_client = memory_stream_one_way_pair()
        if blocked:
            to_client.send_all_hook = self._block
        server = trio.StapledStream(to_client, from_client)
        self.websocket = WebSocket(server, nursery, client=False)
        self.said = []
        self.closed_with = None
        self._frames = 0
        self._put = from_client.put_data
        self.leave = from_client.put_eof
        nursery.start_soon(self._listen)

    async def _block(self):
        self._frames += 1
        if self._frames > 1:
            await trio.sleep_forever()

    def send(self, *frames):
        for frame in frames:
            message = frame if isinstance(frame, bytes) else json.dumps(frame)
            self._put(encode_message(message, NO_MASK))

    async def _listen(self):
        reader = FrameReader(masked=False, limit=1 << 20)
        async for data in self._stream:
            for event in reader.feed(bytes(data)):
                if isinstance(event, Close):
                    self.closed_with = event.code
                    self._put(encode_close(event.code, "", NO_MASK))
                else:
                    self.said.append(json.loads(event))

    @property
    def types(self):
        return [message["type"] for message in self.said]

    @property
    def finals(self):
        return [m["transcript"] for m in self.said if m.get("end_of_turn")]


@pytest.fixture
def connect(nursery, autojump_clock):
    """A new client each time it is called."""
    return partial(Client, nursery)


def make_session(engines, client, query="sample_rate=16000", max_duration=10_800.0, companions=()):
    parameters = parse_parameters(query)
    terms = SessionTerms(
        "an-id", parameters, "en-default", make_decoder(parameters), max_duration, 1_700_000_000,
        companions,
    )  # fmt: skip
    return Session(terms, client.websocket, engines, Metrics())


async def test_terminate_brings_the_last_turn_then_termination(engines, autojump_clock, connect):
    client = connect()
    client.send(*pieces(SPEECH), {"type": "Terminate"})
    assert await make_session(engines, client).run() is EndCause.TERMINATED
    assert client.types[0] == "Begin"
    assert client.types[-2:] == ["Turn", "Termination"]
    assert len(client.finals) == 2
    assert client.closed_with == 1000


async def test_terminate_0_ms_after_the_last_of_200_utterances(engines, autojump_clock, connect):
    for seed in range(200):
        length = 4_800 + seed * 173
        utterance = speech_like(length / 16_000, seed=seed)[:length]
        client = connect()
        client.send(*pieces(utterance), {"type": "Terminate"})
        await make_session(engines, client).run()
        last = client.said[-2]
        assert client.types[-2:] == ["Turn", "Termination"]
        assert last["end_of_turn"]
        heard_until_ms = length // 512 * 512 / 16
        assert last["words"][-1]["end"] == int(heard_until_ms)
        assert client.closed_with == 1000


async def test_any_chunking_gives_the_same_finals(engines, autojump_clock, connect):
    finals = set()
    for size in (800, 1_023, 1_600, 16_000):
        client = connect()
        client.send(*pieces(SPEECH, size), {"type": "Terminate"})
        await make_session(engines, client).run()
        finals.add(tuple(client.finals))
    assert len(finals) == 1


async def test_force_endpoint_ends_the_turn_at_once(engines, autojump_clock, nursery, connect):
    client = connect()
    nursery.start_soon(make_session(engines, client).run)
    client.send(*pieces(SPEECH[:16_000]), {"type": "ForceEndpoint"})
    before = trio.current_time()
    with trio.fail_after(1):
        while not client.finals:
            await trio.sleep(0.001)
    assert trio.current_time() - before < 0.15
    nursery.cancel_scope.cancel()


class Recording:
    """``engines`` that write down what each stream is sent and answers, in order."""

    def __init__(self, engines):
        self._engines = engines
        self.passed = []

    @asynccontextmanager
    async def open_stream(self, version, opening):
        async with self._engines.open_stream(version, opening) as stream:
            yield RecordingStream(stream, self.passed.append)


@frozen
class RecordingStream:
    stream: object
    note: object

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def offer(self, message):
        self.note(message)
        self.stream.offer(message)

    async def send(self, message):
        self.note(message)
        await self.stream.send(message)

    async def receive(self):
        answer = await self.stream.receive()
        self.note(answer)
        return answer

    def deliver_to(self, sink):
        pass  # all through ``receive``


async def test_what_is_said_after_a_forced_end_waits_for_it(engines, autojump_clock, connect):
    """Otherwise the words would depend on how far ahead of the engine a client sends."""
    engines = Recording(engines)
    client, at = connect(), 16_000
    after = pieces(SPEECH[at : 2 * at])
    client.send(*pieces(SPEECH[:at]), {"type": "ForceEndpoint"}, *after, {"type": "Terminate"})
    await make_session(engines, client).run()
    assert len(client.finals) == 2
    finals = [n for n, each in enumerate(engines.passed) if isinstance(each, Final)]
    audio = {each.start: n for n, each in enumerate(engines.passed) if isinstance(each, Audio)}
    assert engines.passed[finals[0]].at == at
    assert audio[at - 1_600] < finals[0] < audio[at]


async def test_a_client_that_stops_has_its_turn_ended(engines, autojump_clock, nursery, connect):
    client = connect()
    nursery.start_soon(make_session(engines, client).run)
    client.send(*pieces(SPEECH[:16_000]))
    await trio.sleep(1.0)
    assert not client.finals
    await trio.sleep(5.0)
    assert len(client.finals) == 1
    nursery.cancel_scope.cancel()


async def test_inactivity(engines, autojump_clock, connect):
    client = connect()
    session = make_session(engines, client, "sample_rate=16000&inactivity_timeout=5")
    started = trio.current_time()
    assert await session.run() is EndCause.INACTIVE
    assert trio.current_time() - started == pytest.approx(5.0, abs=0.1)
    assert client.said[-1]["error_code"] == 3006
    assert client.closed_with == 3006


async def test_keep_alive_restarts_the_inactivity_timer(engines, autojump_clock, nursery, connect):
    client = connect()
    session = make_session(engines, client, "sample_rate=16000&inactivity_timeout=5")
    nursery.start_soon(session.run)
    for _ in range(5):
        await trio.sleep(4)
        client.send({"type": "KeepAlive"})
    assert client.closed_with is None
    await trio.sleep(6)
    assert client.closed_with == 3006


async def test_a_client_is_not_inactive_because_the_server_stood_still(
    engines, autojump_clock, connect
):
    """As with the ends of turns: what came meanwhile waits to be read, and which task wakes up
    first is trio's choice."""
    for _ in range(20):
        client = connect()
        session = make_session(engines, client, "sample_rate=16000&inactivity_timeout=5")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run)
            await trio.sleep(1)
            client.send({"type": "KeepAlive"})
            autojump_clock.jump(6)
            await trio.sleep(4)
            assert client.closed_with is None
            await trio.sleep(3)
            assert client.closed_with == 3006


@pytest.mark.parametrize("end", ["Terminate", "drain"])
async def test_whoever_waits_for_the_last_words_is_not_inactive(engines, connect, end):
    """A failover in the last turn takes longer than the shortest inactivity timeout."""
    slow = Slow(engines)
    client = connect()
    session = make_session(slow, client, "sample_rate=16000&inactivity_timeout=5")
    client.send(*pieces(SPEECH[:32_000]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run)
        await trio.sleep(1)
        if end == "drain":
            session.wind_down(EndCause.DRAINED)
        else:
            client.send({"type": "Terminate"})
    assert client.types[-2:] == ["Turn", "Termination"]
    assert client.closed_with == (1001 if end == "drain" else 1000)


class Slow:
    """``engines`` that need eight seconds to open a stream."""

    def __init__(self, engines):
        self._engines = engines

    @asynccontextmanager
    async def open_stream(self, version, opening):
        await trio.sleep(8)
        async with self._engines.open_stream(version, opening) as stream:
            yield stream


async def test_expiry_says_everything_and_closes_3008(engines, autojump_clock, connect):
    client = connect()
    client.send(*pieces(SPEECH[:32_000]))
    session = make_session(engines, client, max_duration=1.0)
    assert await session.run() is EndCause.EXPIRED
    assert client.types[-1] == "Termination"
    assert "Error" not in client.types
    assert len(client.finals) == 1
    assert client.closed_with == 3008


async def test_a_client_that_reads_nothing_is_given_up(engines, autojump_clock, connect):
    client = connect(blocked=True)
    client.send(*pieces(SPEECH))
    started = trio.current_time()
    assert await make_session(engines, client).run() is EndCause.CLIENT_VANISHED
    assert trio.current_time() - started < SEND_DEADLINE + 5


async def test_a_fault_among_words_closes_with_its_code(engines, autojump_clock, connect):
    """The fault ends the emitter when it is about to send, or in the middle of a frame. Cut there,
    the client would see the connection end without a word."""
    for length in range(8_000, 96_000, 1_600):
        client = connect()
        client.send(*pieces(SPEECH[:length]), {"type": "nonsense"})
        assert await make_session(engines, client).run() is EndCause.INVALID_INPUT
        assert client.types[-1] == "Error", length
        assert client.closed_with == 3006


async def test_a_client_that_leaves_frees_its_stream(engines, autojump_clock, connect):
    for _ in range(10):  # more than the engine has slots
        client = connect()
        client.send(*pieces(SPEECH[:8_000]))
        client.leave()
        assert await make_session(engines, client).run() is EndCause.CLIENT_CLOSED
    host = engines.hosts["en-default"]
    assert host.scheduler.in_use == 0


async def test_cancelled_anywhere_it_leaves_nothing_behind(engines, autojump_clock, connect):
    for checkpoints in range(0, 400, 7):
        client = connect()
        client.send(*pieces(SPEECH[:8_000]), {"type": "Terminate"})
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(make_session(engines, client).run)
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        host = engines.hosts["en-default"]
        assert host.scheduler.in_use == 0


async def test_silence_says_nothing(engines, autojump_clock, connect):
    client = connect()
    client.send(*pieces(np.zeros(30 * 16_000, np.int16)), {"type": "Terminate"})
    await make_session(engines, client).run()
    assert client.types == ["Begin", "Termination"]


async def test_heartbeats_only_when_asked_for(engines, autojump_clock, nursery, connect):
    asked, not_asked = connect(), connect()
    query = "sample_rate=16000&session_heartbeat=true"
    nursery.start_soon(make_session(engines, asked, query).run)
    nursery.start_soon(make_session(engines, not_asked).run)
    for client in (asked, not_asked):
        client.send(*pieces(SPEECH))
    await trio.sleep(11)
    assert asked.types.count("Heartbeat") == 2
    first = next(message for message in asked.said if message["type"] == "Heartbeat")
    assert first["total_audio_received_ms"] == 6_000
    assert "Heartbeat" not in not_asked.types
    nursery.cancel_scope.cancel()


async def test_begin_names_the_model_and_what_was_asked_for(engines, autojump_clock, connect):
    client = connect()
    client.send({"type": "Terminate"})
    await make_session(engines, client, "sample_rate=16000&filter_profanity=true").run()
    configuration = client.said[0]["configuration"]
    assert configuration == {"model": "scripted", "filter_profanity": True}


async def test_live_configuration_from_the_next_audio_on(engines, autojump_clock, connect):
    client = connect()
    update = {"type": "UpdateConfiguration", "max_turn_silence": 5_000, "vad_threshold": None}
    client.send(update, *pieces(SPEECH), {"type": "Terminate"})
    await make_session(engines, client, "sample_rate=16000&min_turn_silence=5000").run()
    assert len(client.finals) == 1  # the pause of 2 s no longer ends a turn


async def test_configurations_without_end_take_no_memory(engines, autojump_clock, nursery, connect):
    """Without audio between them, the last holds; and those that wait count as what they hold."""
    client = connect()
    session = make_session(engines, client)
    nursery.start_soon(session.run)
    await trio.sleep(1)
    for silence in range(1_000, 1_300):
        terms = [f"{silence} {number}" for number in range(100)]
        client.send(
            {"type": "UpdateConfiguration", "max_turn_silence": silence, "keyterms_prompt": terms}
        )
    await trio.sleep(1)
    assert len(session._inference._policy._changes) == 1
    update = ConfigurationUpdated(session.link.parameters)
    assert weigh_packet(update) == weigh_input(Settings(update.parameters)) == CONFIGURATION
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("message", "a_second"),
    [
        ({"type": "KeepAlive"}, CONTROL_LIMIT),
        ({"type": "UpdateConfiguration"}, CONTROL_LIMIT // CONTROL),
        ({"type": "ForceEndpoint"}, CONTROL_LIMIT // CONTROL),
        (b"", CONTROL_LIMIT),
        (bytes(2), CONTROL_LIMIT),
    ],
)
async def test_a_flood_of_messages_without_audio_is_read_a_little_at_a_time(
    engines, autojump_clock, nursery, connect, message, a_second
):
    """One such client took the whole process for itself."""
    client, seconds = connect(), 10
    session = make_session(engines, client)
    nursery.start_soon(session.run)
    await trio.sleep(1)
    before = session.websocket.received
    client.send(*[message] * 5_000)
    size = len(
        encode_message(message if isinstance(message, bytes) else json.dumps(message), NO_MASK)
    )
    await trio.sleep(seconds)
    read = (session.websocket.received - before) / size
    at_once, later = READ_SIZE / size, a_second + FLOODING_READ_SIZE / size
    assert seconds * a_second <= read <= at_once + (seconds + 1) * later
    nursery.cancel_scope.cancel()


async def test_nothing_is_sent_that_the_redactor_has_not_seen(engines, autojump_clock, connect):
    class Redactor(Companion):
        async def __call__(self, message):
            await trio.sleep(0.1)
            if isinstance(message, Turn):
                return evolve(message, transcript="hidden", utterance="hidden", words=())
            return message

    client = connect()
    client.send(*pieces(SPEECH), {"type": "Terminate"})
    session = make_session(engines, client, "redact_pii=true", companions=(Redactor(),))
    assert await session.run() is EndCause.TERMINATED
    assert client.types[0] == "Begin"
    assert client.said[0]["configuration"]["redact_pii"] is True
    assert client.types[-1] == "Termination"
    turns = client.types.count("Turn")
    assert client.finals == ["hidden"] * turns, "and no partials"


@pytest.mark.parametrize("error", [EngineBusy, EngineUnavailable, EngineLost, EngineSilent])
@pytest.mark.parametrize("said", [(), ({"type": "Terminate"},)])
async def test_whatever_becomes_of_the_engine_the_client_gets_a_code(
    connect, autojump_clock, error, said
):
    """Also one that has said everything before Begin."""

    class Broken:
        @asynccontextmanager
        async def open_stream(self, version, opening):
            await trio.sleep(1)
            raise error("for whatever reason")
            yield

    client = connect()
    client.send(*said)
    cause = await make_session(Broken(), client).run()
    assert client.types == ["Error"]
    assert client.closed_with == END_CAUSES[cause]
