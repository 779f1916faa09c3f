"""One end of an engine link on a WebSocket, for the gateway and the engine alike: messages by the
protocol machine (``protocol.engine_link``), and watching whether the peer is alive
(``protocol.liveness``).
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Protocol

import trio
from attrs import define, field

from ssasr.errors import SsasrError
from ssasr.net.websocket import ConnectionClosed, MessageSocket
from ssasr.protocol.engine_link import EngineLink, Role, State
from ssasr.protocol.engine_wire import Message
from ssasr.protocol.liveness import CHECK_SECONDS, ENGINE, GATEWAY, Liveness, Timeouts, Verdict
from ssasr.runtime.handoff import Sink
from ssasr.runtime.timers import Timer

CLOSE_SECONDS = 0.5
"""Seconds for the closing handshake."""

PATIENCE: Mapping[Role, Timeouts] = MappingProxyType({Role.GATEWAY: GATEWAY, Role.ENGINE: ENGINE})
NOT_YET = frozenset({State.CONNECTED, State.OPENING})


class LinkDown(SsasrError):
    """The connection has ended, by either side."""


class PeerSilent(LinkDown):
    """The connection is open, but the peer counts as dead by the rules of ``protocol.liveness``."""


class LinkSocket(MessageSocket, Protocol):
    """What a link uses of its WebSocket besides (``net.websocket.WebSocket``)."""

    @property
    def awaited(self) -> bool:
        """A task waits in ``receive``, and nothing is there."""

    def abort(self) -> None:
        """Break the connection at once; a task that waits on it is freed."""


@define(eq=False)
class Link:
    """A source of the peer's messages and an outlet for ours. Any task may send, one receives."""

    websocket: LinkSocket
    machine: EngineLink
    address: str = ""
    """The peer's, where it is known."""
    expected_from: int = 1
    """Gateway only: an answer is expected once so many samples wait for one (the engine's
    chunk)."""
    _messages: int = 0
    _silent: Verdict | None = None
    _liveness: Liveness = field(init=False)
    _timer: Timer = field(init=False)
    _seen: int = 0
    """Messages received up to the last check."""
    _check_is_far: bool = False
    """The next check is far off, because nothing is expected of the peer."""

    def __attrs_post_init__(self) -> None:
        self._timer = Timer(self._check)

    @property
    def clear(self) -> bool:
        return self.websocket.clear

    def offer(self, message: Message) -> None:
        """Raises LocalProtocolError for a message that is not allowed now, as ``send`` does."""
        self.websocket.offer(self._frame(message))

    async def send(self, message: Message) -> None:
        """Raises LinkDown."""
        try:
            # No checkpoint between the machine and the socket's own queue: the order is kept.
            await self.websocket.send(self._frame(message))
        except ConnectionClosed as closed:
            raise self._down(closed) from None

    def _frame(self, message: Message) -> str | bytes:
        if self._check_is_far and self.machine.role is Role.GATEWAY:
            self._check_is_far = False
            self._timer.hasten()
        return self.machine.send(message)

    async def receive(self) -> Message:
        """Raises LinkDown, PeerFault."""
        try:
            return self._message(await self.websocket.receive())
        except ConnectionClosed as closed:
            raise self._down(closed) from None

    def deliver_to(self, sink: Sink[Any]) -> None:
        self.websocket.deliver_to(sink, self._message)

    def _message(self, frame: str | bytes) -> Message:
        self._messages += 1
        return self.machine.receive(frame)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, within ``CLOSE_SECONDS``. Never raises."""
        with trio.move_on_after(CLOSE_SECONDS, shield=True), suppress(ConnectionClosed):
            await self.websocket.aclose(code, reason[:120] or None)

    async def watch(self) -> None:
        """Check until cancelled whether the peer is alive. The connection to a dead one is broken;
        ``send`` and ``receive`` then raise PeerSilent."""
        self._liveness = Liveness(PATIENCE[self.machine.role], math.floor(trio.current_time()))
        await self._timer.run_until_over(self._next_check_in())

    def _check(self, second: float) -> float | None:
        verdict = self._liveness.check(
            second, self.websocket.received, self._messages, expecting=self._is_answer_expected()
        )
        if verdict is Verdict.ASK:
            self.websocket.ping()
        elif verdict is not Verdict.WELL:
            self._silent = verdict
            self.websocket.abort()
            return None
        return self._next_check_in()

    def _next_check_in(self) -> float:
        """Seconds until the next check."""
        rest = self._liveness.next_check_in(expecting=self._is_answer_expected())
        busy = self.machine.role is Role.GATEWAY and self._messages > self._seen
        self._seen = self._messages
        self._check_is_far = rest > CHECK_SECONDS and not busy
        return rest if self._check_is_far else CHECK_SECONDS

    def _is_answer_expected(self) -> bool:
        """Whether the peer owes us an answer. Only a gateway expects one, and only while it waits
        in ``receive``: a session that is slow to take answers must not blame the engine."""
        machine = self.machine
        if machine.role is Role.ENGINE or not self.websocket.awaited or machine.state in NOT_YET:
            return False
        at = machine.position
        return at.finalize is not None or at.unacknowledged >= self.expected_from

    def _down(self, closed: ConnectionClosed) -> LinkDown:
        if self._silent is not None:
            return PeerSilent(self._silent.value)
        reason = closed.reason
        if reason is None:
            return LinkDown("the connection broke")
        text = f": {reason.reason}" if reason.reason else ""
        return LinkDown(f"closed with {reason.code}{text}")
