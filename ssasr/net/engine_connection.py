"""One end of an engine link on a WebSocket: frames under the protocol machine, and liveness.

Gateway and engine use the same class. trio-websocket stops answering pings while messages lie
unread, so both ends give it a queue that the link's own flow control keeps from filling
(``QUEUE``).
"""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Protocol

import trio
from attrs import define, field
from trio_websocket import ConnectionClosed

from ssasr.errors import SsasrError
from ssasr.protocol.engine_link import EngineLink, LinkStatistics, Role, State
from ssasr.protocol.engine_wire import Message
from ssasr.protocol.faults import PeerFault
from ssasr.protocol.liveness import ENGINE, GATEWAY, LOOK_SECONDS, Liveness, Timeouts, Verdict
from ssasr.runtime.timers import Timer

QUEUE = 1_024
"""Messages a WebSocket may hold unread. The sender of audio stays a few seconds ahead at most, and
answers come per step, so neither end ever has a tenth of it waiting."""
CLOSE_SECONDS = 0.5
"""For the closing handshake; what it brings is only politeness."""


PATIENCE: Mapping[Role, Timeouts] = MappingProxyType({Role.GATEWAY: GATEWAY, Role.ENGINE: ENGINE})
NOT_YET = frozenset({State.CONNECTED, State.OPENING})


class LinkDown(SsasrError):
    """The connection has ended, whoever ended it."""


class PeerSilent(LinkDown):
    """The connection is there, but the peer is dead by the rules of ``protocol.liveness``."""


class WebSocket(Protocol):
    """What a link uses of its connection; ``websocket_stream.RawWebSocket`` has it."""

    async def get_message(self) -> str | bytes: ...
    async def send_message(self, message: str | bytes) -> None: ...
    async def aclose(self, code: int = 1000, reason: str | None = None) -> None: ...
    def ping(self) -> None: ...
    @property
    def clear(self) -> bool: ...
    def offer(self, message: str | bytes) -> None: ...
    def listen(self, sink: Callable[[str | bytes], bool]) -> None: ...


class Connection(Protocol):
    """What a link wants to know of, and do to, the connection under its WebSocket."""

    @property
    def received(self) -> int:
        """Bytes so far; any byte is a sign of life."""

    def abort(self) -> None:
        """Break the connection at once; whoever waits on it is freed."""


class MessageSink(Protocol):
    """Takes messages without waiting, in the task that reads the connection."""

    def ready(self) -> bool: ...
    def take(self, message: Message) -> None: ...


@define(eq=False)
class Link:
    """Any task may send; one receives. What it waits for goes to ``sink`` instead, where there is
    one and it is ready."""

    websocket: WebSocket
    machine: EngineLink
    connection: Connection
    sink: MessageSink | None = None
    _messages: int = 0
    _silent: Verdict | None = None
    _expected_from: int = 1
    _receiving: bool = False
    _liveness: Liveness = field(init=False)
    _timer: Timer = field(init=False)
    _seen: int = 0
    """Messages at the last look."""
    _resting: bool = False
    """The next look is far off."""

    def __attrs_post_init__(self) -> None:
        self._timer = Timer(self._look)
        self.websocket.listen(self._receive_now)

    async def send(self, message: Message) -> None:
        """Raises LinkDown."""
        frame = self.machine.send(message)
        self._hasten()
        try:
            # No checkpoint between the machine and the socket's own queue: the order is kept.
            await self.websocket.send_message(frame)
        except ConnectionClosed as closed:
            raise self._down(closed) from None

    def offer(self, message: Message) -> bool:
        """Send without waiting; False: it would have to wait, and nothing was done."""
        if not self.websocket.clear:
            return False
        self.websocket.offer(self.machine.send(message))
        self._hasten()
        return True

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

    def _receive_now(self, frame: str | bytes) -> bool:
        """Fast path of a message, while ``receive`` waits for it."""
        if not self._receiving or self.sink is None or not self.sink.ready():
            return False
        try:
            message = self.machine.receive(frame)
        except PeerFault:
            return False  # ``receive`` will find the same, and is there to raise it
        self._messages += 1
        self.sink.take(message)
        return True

    def _hasten(self) -> None:
        if self._resting and self.machine.role is Role.GATEWAY:
            self._resting = False
            self._timer.hasten()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye, but not for long. Never raises."""
        with trio.move_on_after(CLOSE_SECONDS, shield=True), suppress(ConnectionClosed):
            await self.websocket.aclose(code, reason[:120] or None)

    def expect_answer_after(self, samples: int) -> None:
        """An engine owes an answer once this much audio waits for one: a chunk."""
        self._expected_from = samples

    async def watch(self) -> None:
        """Look after the peer for ever; one that is dead is cut off, and ``send`` and ``receive``
        then raise PeerSilent."""
        self._liveness = Liveness(PATIENCE[self.machine.role], math.floor(trio.current_time()))
        await self._timer.run_until_over(self._rest())

    def _look(self, second: float) -> float | None:
        verdict = self._liveness.look(
            second, self.connection.received, self._messages, expecting=self._is_answer_expected()
        )
        if verdict is Verdict.ASK:
            self.websocket.ping()
        elif verdict is not Verdict.WELL:
            self._silent = verdict
            self.connection.abort()
            return None
        return self._rest()

    def _rest(self) -> float:
        """Seconds until the next look."""
        rest = self._liveness.rest(expecting=self._is_answer_expected())
        busy = self.machine.role is Role.GATEWAY and self._messages > self._seen
        self._seen = self._messages
        self._resting = rest > LOOK_SECONDS and not busy
        return rest if self._resting else LOOK_SECONDS

    def statistics(self) -> LinkStatistics:
        return self.machine.statistics()

    def _is_answer_expected(self) -> bool:
        """Only a gateway waits for work, and only while it reads: a session that is slow to take
        the answers must not blame the engine."""
        machine = self.machine
        if machine.role is Role.ENGINE or not self._receiving or machine.state in NOT_YET:
            return False
        return machine.finalizing or machine.unacknowledged >= self._expected_from

    def _down(self, closed: ConnectionClosed) -> LinkDown:
        if self._silent is not None:
            return PeerSilent(self._silent.value)
        reason = closed.reason
        if reason is None:
            return LinkDown("the connection broke")
        text = f": {reason.reason}" if reason.reason else ""
        return LinkDown(f"closed with {reason.code}{text}")
