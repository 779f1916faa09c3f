"""Clients that send faster than their engine works: their pings, their audio, their memory."""

import json
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from attrs import define, field

from ssasr.net.websocket_client import connect_websocket
from ssasr.protocol.recognition import Opened, Route
from ssasr.protocol.stream_position import StreamPosition

MINUTES = 12
SECOND = bytes(32_000)


def resident():
    """Bytes of memory of this process, where there is /proc."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096


@define(eq=False)
class StuckStream:
    """Takes whatever comes and never answers."""

    position: StreamPosition
    opened: Opened = field(factory=lambda: Opened("stuck", 1_600))
    clear: bool = True
    route: Route = field(factory=Route)

    def offer(self, message):
        self.position.note(message)

    async def send(self, message):
        await trio.lowlevel.checkpoint()
        self.offer(message)

    async def receive(self):
        await trio.sleep_forever()

    def deliver_to(self, sink):
        pass


class StuckEngines:
    @asynccontextmanager
    async def open_stream(self, version, opening):
        await trio.lowlevel.checkpoint()
        yield StuckStream(StreamPosition.of(opening))

    def is_ready(self):
        return True


@pytest.fixture
def stuck(served):
    served.gateway.engines = StuckEngines()
    return served


def session(served, rate=16_000):
    return connect_websocket(
        f"{served.url}?sample_rate={rate}", headers=[(b"authorization", b"self-hosted")]
    )


async def test_a_ping_behind_twelve_minutes_sent_at_once_is_answered(stuck):
    """A client's library gives up after 20 s, and 12 minutes of audio are lost."""
    async with session(stuck) as websocket:
        assert json.loads(await websocket.get_message())["type"] == "Begin"
        with trio.fail_after(60):
            for _ in range(MINUTES * 60):
                await websocket.send_message(SECOND)
        with trio.fail_after(60):
            await websocket.ping()


async def test_who_is_held_back_is_warned_once(stuck, monkeypatch):
    """Beyond the bound pings wait, and a client whose library gives up would not know why."""
    monkeypatch.setattr("ssasr.gateway.gateway.READ_AHEAD", 1 << 20)
    said = []
    async with session(stuck) as websocket, trio.open_nursery() as nursery:

        async def flood():
            while True:
                await websocket.send_message(SECOND)

        nursery.start_soon(flood)
        with trio.move_on_after(60) as waiting:
            while True:
                said.append(json.loads(await websocket.get_message()))
                if said[-1]["type"] == "Warning":
                    waiting.deadline = trio.current_time() + 0.5
        nursery.cancel_scope.cancel()
    assert [each["type"] for each in said] == ["Begin", "Warning"]
    assert said[1]["warning_code"] == 3007
    assert "more slowly" in said[1]["warning"]


async def test_what_sessions_have_waiting_is_bounded_in_bytes(stuck, monkeypatch):
    """Many messages and large ones; by count alone, each client could leave 100 MB here."""
    monkeypatch.setattr("ssasr.gateway.gateway.READ_AHEAD_TOTAL", 4 << 20)
    before = resident()
    async with trio.open_nursery() as nursery:
        sent = [0]

        async def flood():
            async with session(stuck, rate=192_000) as websocket:
                while True:
                    await websocket.send_message(bytes(384_000))
                    sent[0] += 1

        for _ in range(3):
            nursery.start_soon(flood)
        before_last = -1
        while sent[0] != before_last:  # until nobody can send any more
            before_last = sent[0]
            await trio.sleep(1)
        grown = resident() - before
        nursery.cancel_scope.cancel()
    assert grown < 60 << 20
