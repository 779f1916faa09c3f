"""Failover on virtual time: when it gives up, what it costs, and how a stream moves."""

from collections import deque
from random import Random

import pytest
import trio

from ssasr.engine.scripted import ScriptedRecognizer
from ssasr.errors import EngineBusy, EngineLost, EngineUnavailable
from ssasr.protocol.recognition import Audio, Final, Finalize, Open, StreamOptions, Update
from ssasr.routing.failover import ResilientEngines
from ssasr.routing.retry import RetryBudget, RetryPolicy
from ssasr.telemetry.metrics import Metrics
from tests.contracts.engine_link import PCM, SAMPLES, VERSION, say, until
from tests.harness.memory_links import Fate, MemoryEngines

OPENING = Open("session", StreamOptions())


def resilient(*fates, policy=None, **options):
    engines = MemoryEngines(deque(fates), **options)
    wrapped = ResilientEngines(engines, engines.metrics, policy or RetryPolicy(), Random(1))
    return engines, wrapped


def failovers(engines):
    samples = engines.metrics.failovers.collect()[0].samples
    return {s.labels["reason"]: s.value for s in samples if s.name.endswith("_total") and s.value}


async def whole_stream(stream):
    await say(stream, 0, SAMPLES)
    await stream.send(Finalize(0, SAMPLES))
    return [each for each in await until(stream, Final) if isinstance(each, Update | Final)]


async def test_a_lost_engine_is_replaced_within_a_tenth_of_a_second(autojump_clock):
    _, plain = resilient()
    async with plain.open_stream(VERSION, OPENING) as stream:
        expected = await whole_stream(stream)
    engines, wrapped = resilient(Fate("cut", 30))
    started = trio.current_time()
    async with wrapped.open_stream(VERSION, OPENING) as stream:
        assert await whole_stream(stream) == expected
    assert trio.current_time() - started < 0.1
    assert failovers(engines) == {"lost": 1.0}


@pytest.mark.parametrize(("kind", "reason"), [("cut", "lost"), ("mute", "silent"),
                                              ("drain", "draining")])  # fmt: skip
async def test_the_reason_is_counted(autojump_clock, kind, reason):
    engines, wrapped = resilient(Fate(kind, 20))
    async with wrapped.open_stream(VERSION, OPENING) as stream:
        await whole_stream(stream)
        with trio.move_on_after(20):
            await stream.receive()
    assert failovers(engines) == {reason: 1.0}


async def test_a_draining_engine_is_left_only_when_the_next_has_caught_up(autojump_clock):
    """No pause: answers keep coming, and the old engine goes free."""
    engines, wrapped = resilient(Fate("drain", 40))
    async with wrapped.open_stream(VERSION, OPENING) as stream:
        longest, last = 0.0, trio.current_time()
        for at in range(0, SAMPLES, 1_600):
            await stream.send(Audio(at, PCM[2 * at : 2 * (at + 1_600)]))
            await stream.receive()
            longest, last = max(longest, trio.current_time() - last), trio.current_time()
            await trio.sleep(0.1)
        assert longest < 0.11
        assert engines.opened == 2
        assert len(stream._carriers) == 1
        assert not stream._carriers[0].draining


async def test_an_idle_stream_moves_too(autojump_clock):
    engines, wrapped = resilient(Fate("drain", 3))
    async with wrapped.open_stream(VERSION, OPENING) as stream:
        await stream.send(Audio(0, PCM[:320]))
        await stream.send(Audio(160, PCM[320:640]))
        await trio.sleep(1)
        assert engines.opened == 2
        assert [carrier.draining for carrier in stream._carriers] == [False]


async def test_while_nobody_else_is_there_a_draining_engine_goes_on(autojump_clock):
    engines, wrapped = resilient(Fate("drain", 20), *[Fate("busy")] * 200)
    async with wrapped.open_stream(VERSION, OPENING) as stream:
        await say(stream, 0, 32_000)
        await until(stream, Update, 32_000)
        await trio.sleep(60)
        await say(stream, 32_000, 40_000)
        await until(stream, Update, 40_000)
    assert engines.opened == 1


async def test_a_draining_engine_is_not_given_up_for_replacements_that_fail(autojump_clock):
    """More of them than the budget has tries, half open when they are lost, while nobody speaks;
    and the engine that leaves goes on answering."""
    half_open = [Fate("cut", 0)] * 12
    engines, wrapped = resilient(Fate("drain", 20), *half_open, policy=RetryPolicy(seconds=5.0))
    async with wrapped.open_stream(VERSION, OPENING) as stream:
        await say(stream, 0, 32_000)
        await until(stream, Update, 32_000)
        await trio.sleep(60)
        await say(stream, 32_000, 40_000)
        await until(stream, Update, 40_000)
        assert [carrier.draining for carrier in stream._carriers] == [False]
    assert engines.happened.count("cut") == 12


async def test_nobody_left_ends_the_stream_within_the_budget(autojump_clock):
    _, wrapped = resilient(Fate("cut", 30), *[Fate("away")] * 1_000)
    started = trio.current_time()
    async with wrapped.open_stream(VERSION, OPENING) as stream:
        await say(stream, 0, SAMPLES)
        with pytest.raises(EngineLost):
            await until(stream, Final)
        with pytest.raises(EngineLost):
            await stream.send(Audio(SAMPLES, b""))
    assert 15 <= trio.current_time() - started <= 17


async def test_an_engine_that_comes_back_in_time_is_enough(autojump_clock):
    _, wrapped = resilient(Fate("cut", 30), *[Fate("away")] * 12)
    async with wrapped.open_stream(VERSION, OPENING) as stream:
        await whole_stream(stream)


class Poisoned(ScriptedRecognizer):
    """Some audio kills it."""

    deaths = 0

    def step(self, batch):
        if any(work.audio.size and work.audio[0] == 0.125 for work in batch):
            Poisoned.deaths += 1
            raise EngineLost("killed")
        return super().step(batch)


async def test_audio_that_kills_engines_does_not_kill_them_all(autojump_clock):
    policy = RetryPolicy(tries=3)
    _, wrapped = resilient(policy=policy, recognizer=Poisoned)
    async with wrapped.open_stream(VERSION, OPENING) as stream:
        poison = (4_096).to_bytes(2, "little") * 1_600
        await say(stream, 0, 3_200)
        await until(stream, Update, 3_200)
        await stream.send(Audio(3_200, poison))
        with pytest.raises(EngineLost):
            await until(stream, Final)
    assert Poisoned.deaths == 4, "the first one and three tries"


async def test_a_first_engine_that_is_not_there_is_reported_at_once(autojump_clock):
    class Nobody(MemoryEngines):
        opened = 1  # so that the fates hold for the first link too

    for kind, error in (("busy", EngineBusy), ("away", EngineUnavailable)):
        engines = Nobody(deque([Fate(kind)]))
        engines.opened = 1
        started = trio.current_time()
        with pytest.raises(error):
            async with ResilientEngines(engines, Metrics()).open_stream(VERSION, OPENING):
                pass
        assert trio.current_time() == started


async def test_a_segment_longer_than_what_is_kept_is_lost_with_its_engine(autojump_clock):
    _, wrapped = resilient(Fate("cut", 50), policy=RetryPolicy(max_kept=16_000))
    async with wrapped.open_stream(VERSION, OPENING) as stream:
        await say(stream, 0, 40_000)
        with pytest.raises(EngineLost, match="longer"):
            await until(stream, Final)


async def test_an_engine_of_another_grid_is_no_replacement(autojump_clock):
    class Coarse(ScriptedRecognizer):
        made = 0

        def __init__(self):
            super().__init__()
            Coarse.made += 1
            self.chunk = 1_600 if Coarse.made == 1 else 3_200

    _, wrapped = resilient(Fate("cut", 30), recognizer=Coarse)
    async with wrapped.open_stream(VERSION, OPENING) as stream:
        await say(stream, 0, SAMPLES)
        with pytest.raises(EngineLost, match="chunks"):
            await until(stream, Final)


def test_backoff_doubles_up_to_a_second_and_never_in_step():
    budget = RetryBudget(RetryPolicy(), Random(7))
    assert budget.delay() <= 0.05
    seen = []
    for _ in range(8):
        budget.refused(0.0, any_left=False)
        seen.append(budget.delay())
    for expected, delay in zip([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0], seen, strict=True):
        assert 0.75 * expected <= delay <= 1.25 * expected
    assert len(set(seen)) == len(seen)
    budget.opened()
    budget.progressed()
    assert budget.delay() <= 0.05


def test_a_stream_that_has_lived_starts_with_a_fresh_budget():
    budget = RetryBudget(RetryPolicy(tries=2, settled=10.0), Random(7))
    for hour in range(100):
        budget.lost(hour * 3_600.0, carried_for=3_000.0, any_left=False)
        assert not budget.exhausted(hour * 3_600.0)
        budget.opened()
    for _ in range(2):
        budget.lost(0.0, carried_for=0.1, any_left=True)
    assert budget.exhausted(0.0)
