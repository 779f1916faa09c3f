"""What is measured of latency is what a client who streams live waits, also through an outage."""

from contextlib import asynccontextmanager
from random import Random

import trio
from attrs import define, field

from ssasr.errors import EngineLost, EngineUnavailable
from ssasr.protocol.close_codes import EndCause
from ssasr.protocol.recognition import (
    SAMPLE_RATE,
    VAD_FRAME,
    Finalize,
    Opened,
    Route,
    Update,
    Word,
)
from ssasr.protocol.stream_position import StreamPosition
from ssasr.routing.failover import ResilientEngines
from ssasr.session.spoken import SpokenPosition
from ssasr.telemetry.metrics import Metrics
from tests.harness.clients import pieces, speech_like
from tests.session.test_session import connect, make_session  # noqa: F401

SECOND = SAMPLE_RATE


def test_who_streams_live_has_spoken_what_was_received():
    spoken = SpokenPosition(began=100.0)
    assert spoken.position(104.0, 4 * SECOND - 1_600, 103.9) == 4 * SECOND - 1_600


def test_audio_that_waits_has_been_spoken_meanwhile():
    spoken = SpokenPosition(began=100.0)
    spoken.hold(110.0, 10 * SECOND)
    assert spoken.position(117.0, 10 * SECOND, 110.0) == 17 * SECOND
    spoken.release(117.0)
    assert spoken.position(117.5, 14 * SECOND, 117.5) == int(17.5 * SECOND), "it catches up"
    spoken.hold(117.5, 14 * SECOND)
    assert spoken.position(118.0, 14 * SECOND, 117.5) == 18 * SECOND, "from the first hold on"
    spoken.release(118.0)
    assert spoken.position(119.0, 19 * SECOND - 1_600, 119.0) == 19 * SECOND - 1_600


def test_a_client_that_pauses_is_not_waited_for():
    spoken = SpokenPosition(began=100.0)
    spoken.hold(110.0, 10 * SECOND)
    spoken.release(111.0)
    assert spoken.position(130.0, 11 * SECOND, 111.1) == 11 * SECOND


def test_a_recording_that_is_sent_fast_is_never_late():
    spoken = SpokenPosition(began=100.0)
    spoken.hold(100.1, 8 * SECOND)
    assert spoken.position(103.0, 20 * SECOND, 103.0) == 3 * SECOND


@define(eq=False)
class Outage:
    """Engines that are away between two times."""

    engines: object
    begin: float
    end: float

    @asynccontextmanager
    async def open_stream(self, version, opening):
        now = trio.current_time()
        if self.begin <= now < self.end:
            raise EngineUnavailable("away")
        async with self.engines.open_stream(version, opening) as stream:
            if now >= self.end:
                yield stream
                return
            with trio.move_on_at(self.begin):
                yield stream
            raise EngineLost("gone")


async def speak_live(engines, client, samples):
    """What was measured."""
    session = make_session(engines, client)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(say, client, [*pieces(samples), {"type": "Terminate"}])
        assert await session.run() is EndCause.TERMINATED
    return session.metrics.registry


def worst(registry, name):
    """The bound of the highest bucket with an observation in it."""
    (metric,) = (each for each in registry.collect() if each.name == name)
    counts = [(float(s.labels["le"]), s.value) for s in metric.samples if s.name.endswith("bucket")]
    return min(bound for bound, count in counts if count == counts[-1][1])


async def test_an_outage_shows_in_the_latencies(engines, autojump_clock, connect):  # noqa: F811
    samples = speech_like(60.0, pause_every=3.0, pause=2.0)
    quiet = await speak_live(engines, connect(), samples)
    assert worst(quiet, "ssasr_finalization_seconds") <= 0.3
    assert worst(quiet, "ssasr_word_lag_seconds") <= 1.0

    now = trio.current_time()
    away = Outage(engines, now + 20.0, now + 30.0)
    resilient = ResilientEngines(away, Metrics(), random=Random(1))
    broken = await speak_live(resilient, connect(), samples)
    assert worst(broken, "ssasr_finalization_seconds") in {10.0, 15.0}
    assert worst(broken, "ssasr_word_lag_seconds") in {10.0, 15.0}


async def test_audio_is_counted_while_it_arrives(engines, autojump_clock, connect):  # noqa: F811
    def counted():
        return session.metrics.registry.get_sample_value("ssasr_audio_seconds_total")

    client = connect()
    session = make_session(engines, client)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run)
        await trio.testing.wait_all_tasks_blocked()
        assert counted() == 0.0
        for piece in pieces(speech_like(3.0)):
            client.send(piece)
            await trio.sleep(0.1)
        assert counted() == 3.0
        client.send({"type": "Terminate"})
    assert counted() == 3.0


@define(eq=False)
class SuddenStream:
    """Answers nothing for 12 s; then all that it was sent, in one go."""

    position: StreamPosition
    ready_at: float
    opened: Opened = field(factory=lambda: Opened("sudden", 1_600))
    clear: bool = True
    route: Route = field(factory=Route)
    asked: list = field(factory=list)

    def offer(self, message):
        self.position.note(message)
        if isinstance(message, Finalize):
            self.asked.append(message)

    async def send(self, message):
        await trio.lowlevel.checkpoint()
        self.offer(message)

    async def receive(self):
        await trio.sleep_until(self.ready_at)
        while self.position.unacknowledged < 1_600 or self.asked:
            await trio.sleep(0.05)
        to = self.position.sent // 1_600 * 1_600
        speech = (0.9,) * (to // VAD_FRAME - self.position.acknowledged // VAD_FRAME)
        word = Word("still", 1_600, to - 800, 1.0, False)
        update = Update(0, to, speech, (word,), to)
        self.position.note(update)
        return update

    def deliver_to(self, sink):
        pass


@define(eq=False)
class SuddenEngines:
    streams: list = field(factory=list)

    @asynccontextmanager
    async def open_stream(self, version, opening):
        await trio.lowlevel.checkpoint()
        stream = SuddenStream(StreamPosition.of(opening), trio.current_time() + 12.0)
        self.streams.append(stream)
        yield stream


async def test_no_turn_is_ended_because_its_audio_had_to_wait(autojump_clock, connect):  # noqa: F811
    """An engine that catches up in one go has answered all that it was sent, while what the client
    said meanwhile still waits; that is no pause of the client's. Which task wakes up first is
    trio's choice, so there are twenty."""
    engines = SuddenEngines()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            client = connect()
            nursery.start_soon(make_session(engines, client).run)
            nursery.start_soon(say, client, pieces(speech_like(20.0, pause_every=20.0)))
        await trio.sleep(19.0)
        assert [stream.asked for stream in engines.streams] == [[]] * 20
        nursery.cancel_scope.cancel()


async def test_no_turn_is_ended_because_the_server_stood_still(autojump_clock, connect, engines):  # noqa: F811
    """What the client said while the process was not scheduled waits to be read; that is no pause
    of the client's. Which task wakes up first is trio's choice, so there are twenty times."""
    client = connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_session(engines, client).run)
        nursery.start_soon(say, client, pieces(speech_like(25.0, pause_every=25.0)))
        for _ in range(20):
            await trio.sleep(1.0)
            autojump_clock.jump(5.0)
        await trio.sleep(1.0)
        assert "Turn" in client.types
        assert client.finals == []
        nursery.cancel_scope.cancel()


async def say(client, messages):
    for message in messages:
        client.send(message)
        await trio.sleep(0.1)
