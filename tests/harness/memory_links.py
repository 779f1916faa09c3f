"""Engines behind memory links: the real protocol, server and client code, and no socket.

``MemoryEngines`` is an ``Engines`` whose every stream is served by an engine of its own. A ``Fate``
says what becomes of each link, after how many messages in either direction.
"""

from collections import deque
from contextlib import asynccontextmanager

import trio
from attrs import define, field, frozen
from trio_websocket import CloseReason, ConnectionClosed

from ssasr.engine.host import EngineHost
from ssasr.engine.model_thread import InlineModel
from ssasr.engine.scripted import ScriptedRecognizer
from ssasr.engine.server import serve_link
from ssasr.engine.speakers.scripted import ScriptedDiarizer
from ssasr.engine.speakers.windows import Diarizer
from ssasr.errors import EngineBusy, EngineUnavailable
from ssasr.net.engine_connection import Link
from ssasr.protocol.engine_link import EngineLink, Role
from ssasr.routing.engine_client import LinkedStream
from ssasr.runtime.handoff import HandoffChannel
from ssasr.runtime.process import plain_nursery
from ssasr.telemetry.metrics import Metrics


@define(eq=False)
class MemorySocket:
    """One end of a WebSocket without a network."""

    wire: "Wire"
    received: int = 0
    peer: "MemorySocket | None" = None
    messages: HandoffChannel = field(factory=lambda: HandoffChannel(1_024))

    @property
    def clear(self):
        return not self.wire.is_cut

    @property
    def awaited(self):
        return self.messages.clear

    def deliver_to(self, sink, work=None):
        self.messages.deliver_to(_Fickle(self.wire, sink), work)

    async def receive(self):
        try:
            return await self.messages.receive()
        except trio.EndOfChannel:
            raise ConnectionClosed(self.wire.reason) from None

    async def send(self, message):
        await trio.lowlevel.checkpoint()
        self.offer(message)
        if self.wire.is_cut:
            raise ConnectionClosed(self.wire.reason)

    def offer(self, message):
        self.wire.note_message()
        if self.wire.mute or self.wire.is_cut:
            return
        self.peer.received += len(message)
        self.peer.messages.offer(message)

    def ping(self):
        if not self.wire.mute:
            self.received += 2

    async def aclose(self, code=1000, reason=None):
        await trio.lowlevel.checkpoint()
        self.wire.cut(CloseReason(code, reason))

    def abort(self):
        self.wire.cut(None)


@frozen(eq=False)
class _Fickle:
    """Ready for at most every other message, so that both ways are gone."""

    wire: "Wire"
    sink: object

    def ready(self):
        return self.wire.said % 2 == 1 and self.sink.ready()

    def take(self, message):
        self.sink.take(message)


@define(eq=False)
class Wire:
    """Two ends. ``fate`` is called after ``messages`` messages, once."""

    messages: int | None = None
    fate: object = None
    mute: bool = False
    """Nothing arrives any more, and nobody is notified."""
    reason: CloseReason | None = None
    is_cut: bool = False
    said: int = 0
    left: MemorySocket = field(init=False)
    right: MemorySocket = field(init=False)

    def __attrs_post_init__(self):
        self.left, self.right = MemorySocket(self), MemorySocket(self)
        self.left.peer, self.right.peer = self.right, self.left

    def note_message(self):
        self.said += 1  # first: the fate may say something itself
        if self.said - 1 == self.messages and self.fate is not None:
            self.fate(self)

    def cut(self, reason):
        self.reason = self.reason or reason
        self.is_cut = True
        for end in (self.left, self.right):
            end.messages.close()


@frozen
class Fate:
    """``kind``: cut, mute, drain, cut while draining; or busy, away: no link at all. ``messages``
    into the link."""

    kind: str
    messages: int = 0


@define(eq=False)
class MemoryEngines:
    """The first link is always taken. ``happened`` counts the fates that came true."""

    fates: deque[Fate] = field(factory=deque)
    recognizer: type = ScriptedRecognizer
    diarizer: Diarizer | None = field(factory=lambda: ScriptedDiarizer(hop=9_000))
    metrics: Metrics = field(factory=Metrics)
    happened: list[str] = field(factory=list)
    opened: int = 0

    @asynccontextmanager
    async def open_stream(self, version, opening):
        fate = self.fates.popleft() if self.fates else None
        if fate is not None and fate.kind in {"busy", "away"}:
            await trio.lowlevel.checkpoint()
            if self.opened:
                self.happened.append(fate.kind)
                raise EngineBusy("full") if fate.kind == "busy" else EngineUnavailable("away")
            fate = None
        self.opened += 1
        host = EngineHost(
            self.recognizer(), InlineModel(), self.metrics, max_streams=1, diarizer=self.diarizer
        )
        wire = Wire()
        if fate is not None:
            wire.messages, wire.fate = fate.messages, self._doom(fate, host)
        async with plain_nursery() as nursery:
            await nursery.start(host.run)
            await nursery.start(self._serve, host, wire)
            stream = LinkedStream(wire.left, EngineLink(Role.GATEWAY))
            try:
                await stream.open(opening)
                nursery.start_soon(stream.watch)
                yield stream
            finally:
                await stream.close()
                nursery.cancel_scope.cancel()

    async def _serve(self, host, wire, *, task_status):
        with host.reserve() as place:  # as at a handshake, before anything is said
            task_status.started()
            await serve_link(host, Link(wire.right, EngineLink(Role.ENGINE)), place)

    def _doom(self, fate, host):
        def come_true(wire):
            self.happened.append(fate.kind)
            match fate.kind:
                case "cut":
                    wire.cut(None)
                case "mute":
                    wire.mute = True
                case "drain":
                    host.drain()
                case "drain, then cut":
                    host.drain()
                    wire.messages, wire.fate = wire.said + 12, lambda wire: wire.cut(None)

        return come_true

    def answers(self, version):
        return True

    def is_ready(self):
        return True


@define(eq=False)
class SharedMemoryEngines:
    """Memory links to one host, without fates."""

    host: EngineHost

    @asynccontextmanager
    async def open_stream(self, version, opening):
        wire = Wire()
        async with plain_nursery() as nursery:
            await nursery.start(self._serve, wire)
            stream = LinkedStream(wire.left, EngineLink(Role.GATEWAY))
            try:
                await stream.open(opening)
                yield stream
            finally:
                await stream.close()
                nursery.cancel_scope.cancel()

    async def _serve(self, wire, *, task_status):
        with self.host.reserve() as place:
            task_status.started()
            link = Link(wire.right, EngineLink(Role.ENGINE))
            await serve_link(self.host, link, place)

    def answers(self, version):
        return self.host.ready.is_set()

    def is_ready(self):
        return self.host.ready.is_set()
