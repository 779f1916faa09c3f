"""The engine host: sharing, leaving, dying."""

import queue
import time
from contextlib import AsyncExitStack
from functools import partial
from random import Random

import numpy as np
import pytest
import trio

from ssasr.engine import capacity
from ssasr.engine.capacity import FIRST_REST, Unit, Workload
from ssasr.engine.host import EngineHost
from ssasr.engine.model_thread import InlineModel, ModelThread, ModelThreadGone
from ssasr.engine.scripted import ScriptedRecognizer
from ssasr.engine.streams import LinkFault
from ssasr.errors import EngineBusy, EngineLost, EngineUnavailable
from ssasr.protocol.recognition import (
    Audio,
    Draining,
    Final,
    Finalize,
    Open,
    StreamOptions,
    Update,
)
from ssasr.telemetry.metrics import Metrics
from tests.harness.clients import speech_like

SPEECH = speech_like(2.0).astype("<i2")
OPENING = Open("session", StreamOptions())


class DyingRecognizer(ScriptedRecognizer):
    """Fails at its third step, like a device that falls off the bus."""

    steps = 0

    def step(self, batch):
        self.steps += 1
        if self.steps == 3:
            raise RuntimeError("device lost")
        return super().step(batch)


class CountingRecognizer(ScriptedRecognizer):
    """Counts states made and freed."""

    alive = 0

    def new_state(self, *arguments):
        self.alive += 1
        return super().new_state(*arguments)

    def release(self, state):
        self.alive -= 1


async def start_host(nursery, recognizer=None, max_streams=4):
    host = EngineHost(
        recognizer or ScriptedRecognizer(), InlineModel(), Metrics(), max_streams=max_streams
    )
    await nursery.start(host.run)
    return host


async def words_of(host, samples, pieces=1):
    async with host.open_stream(OPENING) as stream:
        for part in np.array_split(samples, pieces):
            await stream.send(Audio(stream.stream.received, part.astype("<i2").tobytes()))
        await stream.send(Finalize(0, len(samples)))
        while not isinstance(answer := await stream.receive(), Final):
            pass
        return answer.words


async def test_streams_do_not_disturb_each_other(nursery, autojump_clock):
    host = await start_host(nursery)
    alone = await words_of(host, SPEECH)
    together = {}

    async def one(name, pieces):
        together[name] = await words_of(host, SPEECH, pieces)

    async with trio.open_nursery() as streams:
        for name, pieces in enumerate((1, 3, 7, 40)):
            streams.start_soon(one, name, pieces)
    assert len(alone) > 3
    assert all(words == alone for words in together.values())
    nursery.cancel_scope.cancel()


async def test_the_next_segment_starts_where_the_last_one_ended(nursery, autojump_clock):
    host = await start_host(nursery)
    async with host.open_stream(OPENING) as stream:
        await stream.send(Audio(0, SPEECH.tobytes()))
        await trio.testing.wait_all_tasks_blocked()
        await stream.send(Finalize(0, 8_000))  # the engine has processed all 32,000 by now
        answers = []
        while not answers or answers[-1].position < 31_000:
            answer = await stream.receive()
            if isinstance(answer, Final):
                assert (answer.segment, answer.at) == (0, 8_000)
                answers.clear()
            elif answer.segment == 1:
                answers.append(answer)
        async with host.open_stream(Open("other", StreamOptions(), start=8_000)) as fresh:
            await fresh.send(Audio(8_000, SPEECH[8_000:].tobytes()))
            expected = []
            while not expected or expected[-1].position < 31_000:
                expected.append(await fresh.receive())
    assert [a.words for a in answers] == [e.words for e in expected]
    nursery.cancel_scope.cancel()


async def test_full_starting_and_draining_engines_refuse(nursery, autojump_clock):
    host = await start_host(nursery, max_streams=1)
    async with host.open_stream(OPENING) as stream:
        with pytest.raises(EngineBusy):
            async with host.open_stream(OPENING):
                pass
        host.drain()
        assert isinstance(await stream.receive(), Draining)
    with pytest.raises(EngineUnavailable):
        async with host.open_stream(OPENING):
            pass
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "message",
    [Audio(7, b"\0\0"), Audio(0, b"\0"), Finalize(3, 0), Finalize(0, 99), Audio(0, bytes(1 << 23))],
)
async def test_messages_that_break_the_rules(nursery, autojump_clock, message):
    host = await start_host(nursery)
    async with host.open_stream(OPENING) as stream:
        with pytest.raises(LinkFault):
            await stream.send(message)
    assert await words_of(host, SPEECH)
    nursery.cancel_scope.cancel()


async def test_every_state_is_freed(nursery, autojump_clock):
    recognizer = CountingRecognizer()
    host = await start_host(nursery, recognizer)
    for leave_early in (True, False, True):
        async with host.open_stream(OPENING) as stream:
            await stream.send(Audio(0, SPEECH.tobytes()))
            if not leave_early:
                await stream.send(Finalize(0, 16_000))
                while not isinstance(await stream.receive(), Final):
                    pass
            else:
                await stream.receive()
    await words_of(host, SPEECH)  # the last to leave is freed with the next step
    async with host.open_stream(OPENING) as stream:
        await stream.send(Audio(0, SPEECH.tobytes()))
        await stream.receive()
        assert recognizer.alive == 1
    nursery.cancel_scope.cancel()


async def test_a_dead_model_ends_the_host_and_its_streams():
    host = EngineHost(DyingRecognizer(), ModelThread(), Metrics())
    seen = []

    async def client():
        with pytest.raises((EngineLost, trio.Cancelled)):
            async with host.open_stream(OPENING) as stream:
                position = 0
                while True:
                    await stream.send(Audio(position, SPEECH[:1_600].tobytes()))
                    position += 1_600
                    seen.append(await stream.receive())

    with pytest.raises(ExceptionGroup) as died, trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(host.run)
            nursery.start_soon(client)
    assert died.group_contains(RuntimeError, match="device lost")
    assert len(seen) == 2
    assert all(isinstance(message, Update) for message in seen)


async def test_model_thread_tells_whoever_waits():
    thread = ModelThread()
    jobs = []

    def fail():
        raise ValueError("broken")

    async def wait(job):
        with pytest.raises(ModelThreadGone):
            await thread.call(job)
        jobs.append(job)

    with pytest.raises(ExceptionGroup) as died, trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(thread.run)
            assert await thread.call(sum, [1, 2]) == 3
            async with trio.open_nursery() as callers:
                for _ in range(2):  # whichever comes first kills the thread, the other never runs
                    callers.start_soon(wait, fail)
            with pytest.raises(ModelThreadGone):
                await thread.call(len, "too late")
    assert died.group_contains(ValueError, match="broken")
    assert len(jobs) == 2


class Taker:
    """Takes answers unless it is busy; ``fault`` is raised instead."""

    def __init__(self, fault=None):
        self.taken, self.busy, self.fault = [], False, fault

    def ready(self):
        return not self.busy

    def take(self, answer):
        if self.fault is not None:
            raise self.fault
        self.taken.append(answer)


async def test_a_sink_that_is_ready_is_given_what_receive_waits_for(nursery, autojump_clock):
    host = await start_host(nursery)
    async with host.open_stream(OPENING) as stream:
        quick, slow = Taker(), []

        async def receive():
            while True:
                slow.append(await stream.receive())

        stream.deliver_to(quick)
        async with trio.open_nursery() as receiving:
            receiving.start_soon(receive)
            for chunk in range(8):
                quick.busy = chunk in (3, 4)
                await stream.send(Audio(1_600 * chunk, SPEECH[:1_600].tobytes()))
                await trio.testing.wait_all_tasks_blocked()
            receiving.cancel_scope.cancel()
    assert [answer.position // 1_600 for answer in quick.taken] == [1, 2, 3, 6, 7, 8]
    assert [answer.position // 1_600 for answer in slow] == [4, 5]
    nursery.cancel_scope.cancel()


async def test_a_sink_that_fails_ends_its_own_stream_alone(nursery, autojump_clock):
    host = await start_host(nursery)
    async with host.open_stream(OPENING) as other:
        async with host.open_stream(OPENING) as stream:
            stream.deliver_to(Taker(ValueError("broken session")))
            nursery.start_soon(stream.send, Audio(0, SPEECH.tobytes()))
            with pytest.raises(ValueError, match="broken session"):
                await stream.receive()
        await other.send(Audio(0, SPEECH.tobytes()))
        assert (await other.receive()).position > 0
    assert host.scheduler.in_use == 0
    nursery.cancel_scope.cancel()


async def test_a_stream_that_reads_nothing_is_dropped(nursery, autojump_clock, monkeypatch):
    monkeypatch.setattr("ssasr.engine.host.MAX_UNREAD", 1 << 14)
    host = await start_host(nursery)
    async with host.open_stream(OPENING) as stream:
        with pytest.raises(EngineLost):
            for chunk in range(100):
                await stream.send(Audio(1_600 * chunk, bytes(3_200)))
                await trio.testing.wait_all_tasks_blocked()
        assert host.scheduler.in_use == 0
        with pytest.raises(EngineLost):
            for _ in range(101):
                await stream.receive()
    assert await words_of(host, SPEECH)
    nursery.cancel_scope.cancel()


class DeviceRecognizer(ScriptedRecognizer):
    """Its steps take until they are let go."""

    def __init__(self, max_batch=10):
        super().__init__()
        self.max_batch = max_batch
        self.began, self.discard_before = queue.Queue(), queue.Queue()

    async def begun(self):
        """The streams of the step that has begun and was not asked for yet."""
        return await trio.to_thread.run_sync(partial(self.began.get, timeout=30))

    def step(self, batch):
        self.began.put(len(batch))
        self.discard_before.get(timeout=30)
        return super().step(batch)


async def test_answers_are_delivered_while_the_next_step_runs():
    recognizer = DeviceRecognizer()
    host = EngineHost(recognizer, ModelThread(), Metrics())
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(host.run)
            async with host.open_stream(OPENING) as stream:
                await stream.send(Audio(0, SPEECH[:1_600].tobytes()))
                await recognizer.begun()
                await stream.send(Audio(1_600, SPEECH[:1_600].tobytes()))
                recognizer.discard_before.put(None)
                await recognizer.begun()
                assert (await stream.receive()).position == 1_600, "the second step still runs"
                recognizer.discard_before.put(None)
                assert (await stream.receive()).position == 3_200
            nursery.cancel_scope.cancel()


async def test_two_steps_at_once_share_the_streams_that_are_ready():
    recognizer = DeviceRecognizer()
    recognizer.steps_at_once = 2
    host = EngineHost(recognizer, ModelThread(threads=2), Metrics())
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery, AsyncExitStack() as opened:
            await nursery.start(host.run)
            streams = [
                await opened.enter_async_context(host.open_stream(OPENING)) for _ in range(4)
            ]
            for stream in streams:
                stream.offer(Audio(0, SPEECH[:1_600].tobytes()))
            assert [await recognizer.begun(), await recognizer.begun()] == [2, 2]
            streams[0].offer(Audio(1_600, SPEECH[:1_600].tobytes()))
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert recognizer.began.empty(), "its step is not over"
            for _ in range(2):
                recognizer.discard_before.put(None)
            assert await recognizer.begun() == 1
            for stream in streams:
                assert (await stream.receive()).position == 1_600, "the next step still runs"
            recognizer.discard_before.put(None)
            assert (await streams[0].receive()).position == 3_200
            nursery.cancel_scope.cancel()


class HastyRecognizer(CountingRecognizer):
    """Its steps take anything from nothing to 2 ms, three at once."""

    max_chunks, steps_at_once = 1, 3

    def __init__(self):
        super().__init__()
        self.random, self.stepped, self.most = Random(1), [], 0

    def new_state(self, *arguments):
        time.sleep(self.random.choice([0, 0.0002]))
        state = super().new_state(*arguments)
        self.most = max(self.most, self.alive)
        return state

    def step(self, batch):
        states = [id(work.state) for work in batch]
        assert not set(states) & set(self.stepped), "a stream is in one step at a time"
        self.stepped += states
        time.sleep(self.random.choice([0, 0.0002, 0.002]))
        outcomes = super().step(batch)
        for state in states:
            self.stepped.remove(state)
        return outcomes


async def test_answers_stay_in_order_however_steps_overtake_each_other(monkeypatch):
    """Of seven streams at a time, some of which leave in the middle of a step; whoever delivers is
    often busy."""
    recognizer = HastyRecognizer()
    host = EngineHost(recognizer, ModelThread(threads=3), Metrics(), max_streams=7)
    received, hand_over = [], host._hand_over

    async def hand_over_late():
        await trio.sleep(recognizer.random.choice([0, 0.003]))
        await hand_over()

    monkeypatch.setattr(host, "_hand_over", hand_over_late)

    async def client(number):
        for turn in range(4):
            async with host.open_stream(OPENING) as stream:
                positions = []
                for chunk in range(30):
                    stream.offer(Audio(1_600 * chunk, SPEECH[:1_600].tobytes()))
                    if chunk % 3 == number % 3:
                        await trio.sleep(0.001)
                while turn % 2 == 0 and positions[-1:] != [48_000]:
                    positions.append((await stream.receive()).position)
            received.append(positions)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(host.run)
            async with trio.open_nursery() as clients:
                for number in range(7):
                    clients.start_soon(client, number)
            await trio.sleep(0.1)  # steps of those that have left
            assert await words_of(host, SPEECH)
            nursery.cancel_scope.cancel()
    for positions in received:
        assert positions == sorted(set(positions))
    assert sum(positions[-1:] == [48_000] for positions in received) == 14
    assert recognizer.most <= 14
    assert recognizer.alive <= 1, "the last to leave is freed with the next step"


async def test_those_that_do_not_fit_into_a_step_keep_nobody_waiting():
    recognizer = DeviceRecognizer(max_batch=2)
    host = EngineHost(recognizer, ModelThread(), Metrics())
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery, AsyncExitStack() as opened:
            await nursery.start(host.run)
            streams = [
                await opened.enter_async_context(host.open_stream(OPENING)) for _ in range(6)
            ]
            await streams[0].send(Audio(0, SPEECH[:1_600].tobytes()))
            sizes = [await recognizer.begun()]
            for stream in reversed(streams[1:]):
                await stream.send(Audio(0, SPEECH[:1_600].tobytes()))
            for early in ((), streams[:0:-1][:2], streams[:0:-1][2:4]):
                recognizer.discard_before.put(None)
                sizes.append(await recognizer.begun())
                for stream in early:
                    assert (await stream.receive()).position == 1_600, "the next step still runs"
            recognizer.discard_before.put(None)
            assert (await streams[1].receive()).position == 1_600
            nursery.cancel_scope.cancel()
    assert sizes == [1, 2, 2, 1]


class MeasuredRecognizer(ScriptedRecognizer):
    """Its one unit of work takes what ``seconds`` says, time after time."""

    def __init__(self):
        super().__init__()
        share = {"step": 1.0}
        self.workload = Workload({"step": Unit(int)}, 1, lambda n: {"step": n}, share, share)


async def test_what_an_engine_offers_is_measured_and_only_grows(
    nursery, autojump_clock, monkeypatch
):
    found = iter([0.3, 0.1, 0.2])
    monkeypatch.setattr(capacity, "unit_seconds", lambda _: {"step": next(found, 0.2)})
    host = await start_host(nursery, MeasuredRecognizer(), max_streams=None)
    offered = host.scheduler.max_streams
    assert 1 <= offered < 5
    async with host.open_stream(OPENING):
        await trio.sleep(10 * FIRST_REST)
        assert host.scheduler.max_streams == offered, "not while it is in use"
    await trio.sleep(2 * FIRST_REST)
    more = host.scheduler.max_streams
    assert more > offered
    await trio.sleep(10 * FIRST_REST)
    assert host.scheduler.max_streams == more
    metrics = host._metrics.exposition().decode()
    assert f'ssasr_engine_capacity{{engine=""}} {more}.0' in metrics
    assert 'ssasr_engine_unit_seconds{engine="",unit="step"} 0.1' in metrics
    nursery.cancel_scope.cancel()


async def test_a_configured_number_of_streams_is_not_measured(nursery, autojump_clock):
    host = await start_host(nursery, MeasuredRecognizer(), max_streams=3)
    assert host.scheduler.max_streams == 3
    nursery.cancel_scope.cancel()
