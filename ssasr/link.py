"""One end of an engine link on a WebSocket: frames under the protocol machine, and liveness.

Gateway and engine use the same class. trio-websocket stops answering pings while messages lie
unread, so both ends give it a queue that the link's own flow control keeps from filling
(``QUEUE``).
"""

from contextlib import suppress
from typing import Protocol

import trio
from attrs import define
from trio_websocket import ConnectionClosed

from ssasr.errors import SsasrError
from ssasr.protocol.engine_link import EngineLink, LinkStatistics, Role, State
from ssasr.protocol.engine_wire import Message
from ssasr.protocol.liveness import LOOK_SECONDS, Liveness, Verdict

QUEUE = 1_024
"""Messages a WebSocket may hold unread. The sender of audio stays a few seconds ahead at most, and
answers come per step, so neither end ever has a tenth of it waiting."""
CLOSE_SECONDS = 0.5
"""For the closing handshake; what it brings is only politeness."""


NOT_YET = frozenset({State.CONNECTED, State.OPENING})


class LinkDown(SsasrError):
    """The connection has ended, whoever ended it."""


class PeerSilent(LinkDown):
    """The connection is there, but the peer is dead by the rules of ``protocol.liveness``."""


class WebSocket(Protocol):
    """What a link uses of trio-websocket's connection."""

    async def get_message(self) -> str | bytes: ...
    async def send_message(self, message: str | bytes) -> None: ...
    async def ping(self) -> None: ...
    async def aclose(self, code: int = 1000, reason: str | None = None) -> None: ...


class Connection(Protocol):
    """What a link wants to know of, and do to, the connection under its WebSocket."""

    @property
    def received(self) -> int:
        """Bytes so far; any byte is a sign of life."""

    def abort(self) -> None:
        """Break the connection at once; whoever waits on it is freed."""


class CountedStream(trio.abc.Stream):
    """A stream that is a ``Connection``."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.received = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        self.received += len(data)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def abort(self) -> None:
        stream = self._stream
        if isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        stream.socket.close()  # type: ignore[attr-defined]  # a socket stream, or one replayed


@define(eq=False)
class Link:
    """Any task may send; one receives."""

    websocket: WebSocket
    machine: EngineLink
    connection: Connection
    _messages: int = 0
    _silent: Verdict | None = None
    _owing_from: int = 1
    _receiving: bool = False

    async def send(self, message: Message) -> None:
        """Raises LinkDown."""
        frame = self.machine.send(message)
        try:
            # No checkpoint between the machine and the socket's own queue: the order is kept.
            await self.websocket.send_message(frame)
        except ConnectionClosed as closed:
            raise self._down(closed) from None

    async def receive(self) -> Message:
        """Raises LinkDown, PeerFault."""
        self._receiving = True
        try:
            frame = await self.websocket.get_message()
        except ConnectionClosed as closed:
            raise self._down(closed) from None
        finally:
            self._receiving = False
        self._messages += 1
        return self.machine.receive(frame)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye, but not for long. Never raises."""
        with trio.move_on_after(CLOSE_SECONDS, shield=True), suppress(ConnectionClosed):
            await self.websocket.aclose(code, reason[:120] or None)

    def owe_after(self, samples: int) -> None:
        """An engine owes an answer once this much audio waits for one: a chunk."""
        self._owing_from = samples

    async def watch(self) -> None:
        """Look after the peer for ever; one that is dead is cut off, and ``send`` and ``receive``
        then raise PeerSilent."""
        liveness = Liveness(trio.current_time())
        async with trio.open_nursery() as pings:
            while True:
                await trio.sleep(LOOK_SECONDS)
                verdict = liveness.look(
                    trio.current_time(),
                    self.connection.received,
                    self._messages,
                    owing=self._is_owed(),
                )
                if verdict is Verdict.ASK:
                    pings.start_soon(self._ping)
                elif verdict is not Verdict.WELL:
                    self._silent = verdict
                    self.connection.abort()
                    pings.cancel_scope.cancel()

    def statistics(self) -> LinkStatistics:
        return self.machine.statistics()

    def _is_owed(self) -> bool:
        """Only a gateway waits for work, and only while it reads: a session that is slow to take
        the answers must not blame the engine."""
        machine = self.machine
        if machine.role is Role.ENGINE or not self._receiving or machine.state in NOT_YET:
            return False
        return machine.finalizing or machine.unacknowledged >= self._owing_from

    async def _ping(self) -> None:
        with suppress(ConnectionClosed):
            await self.websocket.ping()

    def _down(self, closed: ConnectionClosed) -> LinkDown:
        if self._silent is not None:
            return PeerSilent(self._silent.value)
        reason = closed.reason
        if reason is None:
            return LinkDown("the connection broke")
        text = f": {reason.reason}" if reason.reason else ""
        return LinkDown(f"closed with {reason.code}{text}")
