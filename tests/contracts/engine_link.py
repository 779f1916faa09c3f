"""What every way to reach an engine must do, as one function.

``check_engine_link(make_pair)``: ``make_pair()`` is an async context manager that gives a fresh
pair of an ``Engines`` and the scripted ``EngineHost`` with two places behind it.
"""

import pytest
import trio

from ssasr.errors import EngineBusy, EngineError, EngineUnavailable
from ssasr.protocol.recognition import (
    Audio,
    Configure,
    Draining,
    Final,
    Finalize,
    Open,
    StreamOptions,
    Update,
)
from tests.harness.clients import speech_like

VERSION = "en-default"
PCM = speech_like(3.0).astype("<i2").tobytes()
SAMPLES = len(PCM) // 2
CUT = 20_000
"""Where the first segment ends."""


async def check_engine_link(make_pair):
    """Raises AssertionError with what is wrong."""
    for check in (_streams, _replays, _admits, _drains, _lets_go):
        async with make_pair() as (engines, host):
            with trio.fail_after(60):
                await check(engines, host)


def opening(**changes):
    return Open("session", StreamOptions(), **changes)


async def say(stream, start, end, packet=1_600):
    for at in range(start, end, packet):
        upto = min(at + packet, end)
        await stream.send(Audio(at, PCM[2 * at : 2 * upto]))


async def until(stream, kind, position=0):
    """All answers up to the first of ``kind`` that is about ``position`` or later."""
    answers = []
    while True:
        answers.append(await stream.receive())
        last = answers[-1]
        if isinstance(last, kind) and getattr(last, "position", position) >= position:
            return answers


async def _two_segments(stream):
    await say(stream, 0, 32_000)
    await stream.send(Finalize(0, CUT))
    first = await until(stream, Final)
    await stream.send(Configure(StreamOptions(("fr",))))
    await say(stream, 32_000, SAMPLES)
    await stream.send(Finalize(1, SAMPLES))
    return first, await until(stream, Final)


async def _streams(engines, host):
    async with engines.open_stream(VERSION, opening()) as stream:
        assert stream.opened.model == host.recognizer.name
        assert stream.opened.chunk == host.recognizer.chunk
        first, second = await _two_segments(stream)
    final = first[-1]
    assert (final.segment, final.at) == (0, CUT)
    assert final.words
    assert all(word.final and word.end <= CUT for word in final.words)
    assert second[-1].language == "fr"
    updates = [each for each in second if isinstance(each, Update) and each.segment == 1]
    positions = [update.position for update in updates]
    assert positions == sorted(positions)
    assert all((at - CUT) % stream.opened.chunk == 0 for at in positions[:-1])
    delivered = ()
    for update in updates:
        finals = tuple(word for word in update.words if word.final)
        assert finals[: len(delivered)] == delivered, "final words stay"
        delivered = finals
    assert second[-1].words[: len(delivered)] == delivered


async def _replays(engines, host):
    """A stream that begins in the middle says what one from the start said."""
    async with engines.open_stream(VERSION, opening()) as stream:
        _, second = await _two_segments(stream)
    committed = tuple(word for word in second[-2].words if word.final)
    middle = opening(segment=1, start=CUT, committed=committed)
    async with engines.open_stream(VERSION, middle) as stream:
        await say(stream, CUT, 32_000)
        await stream.send(Configure(StreamOptions(("fr",))))
        await say(stream, 32_000, SAMPLES)
        await stream.send(Finalize(1, SAMPLES))
        again = await until(stream, Final)
    assert again[-1] == second[-1]


async def _admits(engines, host):
    async with engines.open_stream(VERSION, opening()) as one:
        async with engines.open_stream(VERSION, opening()):
            with pytest.raises(EngineBusy):
                async with engines.open_stream(VERSION, opening()):
                    pass
        await say(one, 0, 3_200)
        await until(one, Update, 3_200)
        with trio.fail_after(60):
            await _wait_streams(host, 1)
        async with engines.open_stream(VERSION, opening()):
            pass


async def _drains(engines, host):
    async with engines.open_stream(VERSION, opening()) as stream:
        host.drain()
        await until(stream, Draining)
        await say(stream, 0, 3_200)
        await until(stream, Update, 3_200)
        with pytest.raises(EngineUnavailable):
            async with engines.open_stream(VERSION, opening()):
                pass


async def _lets_go(engines, host):
    """However a stream ends, its place is free."""
    with pytest.raises(EngineError):
        async with engines.open_stream(VERSION, opening()):
            raise EngineError("the session failed")
    async with engines.open_stream(VERSION, opening()) as stream:
        await say(stream, 0, 3_200)
    with trio.move_on_after(1) as scope:
        async with engines.open_stream(VERSION, opening()) as stream:
            scope.cancel()
            await stream.receive()
    with trio.fail_after(60):
        await _wait_streams(host, 0)


async def _wait_streams(host, count):
    """There is no event for this, and the socket is another process's affair."""
    while host.scheduler.in_use != count:
        await trio.sleep(0.01)
