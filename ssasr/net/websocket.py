"""A WebSocket connection after its handshake (``handshake``): frames (``frames``) on a stream.

Incoming bytes are read as soon as they arrive: of a plain socket by the epoll reader, otherwise by
a task of the connection. Pings are answered, a close frame is noted, and messages go into the
channel behind ``receive``, or on the fast path past it (``runtime.handoff``). When ``ahead`` bytes
of messages wait in that channel, reading stops and TCP holds the peer back; a ping of the peer
waits no longer than the messages sent before it. ``on_full`` is called when reading first stops;
from then on pings wait behind what lies in the socket buffers of both machines.

A channel bounds what waits, not what is done at once: a peer that sends pings or other small things
as fast as it can would take the process for itself, since one read brings hundreds of them. So they
are counted (``note_control``). Of a peer with too many no more is read in the same second, and from
then on only a little at once.

Outgoing messages are written to the socket at once. What the socket does not take is kept and
written later, in order.
"""

import math
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import trio
from trio_websocket import CloseReason, ConnectionClosed

from ssasr.net.epoll_reader import EpollReader, current_reader
from ssasr.net.frames import (
    ABNORMAL,
    NO_MASK,
    Close,
    FrameReader,
    Ping,
    encode_close,
    encode_message,
    encode_ping,
    encode_pong,
)
from ssasr.runtime.handoff import HandoffChannel, Outlet, Sink, Source

__all__ = ["CloseReason", "ConnectionClosed", "MessageSocket", "WebSocket"]

READ_SIZE = 16 * 1024
MESSAGE_LIMIT = 1 << 20
"""Bytes of one message. A longer one is cut off after this many bytes and one more."""
CONTROL_LIMIT = 250
"""Pings, and messages without audio, that are read of a peer in one second; sessions send a few a
minute, Opus in frames of 10 ms a hundred a second."""
FLOODING_READ_SIZE = 1024
"""Bytes read at once of a peer that has sent more than that: some fifty messages."""
MESSAGE_WEIGHT = 64
"""Bytes counted for a waiting message besides its content."""


class MessageSocket(Source[str | bytes], Outlet[str | bytes], Protocol):
    """What sessions and links use of a WebSocket. ``receive`` and ``send`` raise
    ConnectionClosed."""

    @property
    def received(self) -> int:
        """Bytes so far; any byte is a sign of life."""

    def deliver_to(self, sink: Sink[Any], work: Callable[[str | bytes], Any] | None = None) -> None:
        """As ``HandoffChannel``."""

    def ping(self) -> None: ...
    def note_control(self, count: int = 1) -> None:
        """The peer has sent a message without audio; ``count``: as how many it counts."""

    async def aclose(self, code: int = 1000, reason: str | None = None) -> None: ...


class WebSocket:
    """``client``: whether this end is the client; ``head``: bytes that were already read from
    ``stream``; ``nursery``: runs the connection's tasks, and must be cancelled when the connection
    is over; ``ahead``: bytes of messages that may wait for ``receive``.

    A client masks its frames with zeros, which change nothing. The purpose of a random mask is that
    a script in a browser cannot choose the bytes on the wire, where a proxy that does not know
    WebSockets might misread them (RFC 6455, section 10.3). Here the client is a gateway."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        nursery: trio.Nursery,
        *,
        client: bool,
        head: bytes = b"",
        ahead: int | Callable[[], int] = MESSAGE_LIMIT,
    ) -> None:
        self.received = 0
        """Bytes read so far; any byte shows that the peer is alive."""
        self.closed: CloseReason | None = None
        """Why the connection was closed or is being closed; None while it is open."""
        self.on_full: Callable[[], None] | None = None
        self._stream = stream
        self._nursery = nursery
        self._socket = stream.socket if isinstance(stream, trio.SocketStream) else None
        self._key = NO_MASK if client else None
        self._reader = FrameReader(masked=not client, limit=MESSAGE_LIMIT)
        self._messages = HandoffChannel[str | bytes](ahead, weigh)
        self._ended = False
        """The peer will send nothing more."""
        self._controls, self._second = 0, -math.inf
        """Pings and messages without audio in the second that began then."""
        self._read_size = READ_SIZE
        self._unread = trio.Event()
        """The reading task has ended."""
        self._epoll = None if self._socket is None else current_reader()
        self._watched: int | None = None
        """The socket's number, while the epoll reader watches it."""
        self._stopped = trio.Event()
        self._bug: Exception | None = None
        self._unsent = bytearray()
        self._pong = b""
        """The newest pong that could not be sent yet; it replaces older ones."""
        self._sending = trio.StrictFIFOLock()
        self._torn = False
        if head:
            self._handle(head)
        nursery.start_soon(self._run)

    # -- in ----------------------------------------------------------------------------------------

    def note_control(self, count: int = 1) -> None:
        """As ``MessageSocket``."""
        now = trio.current_time()
        if now >= self._second + 1.0:
            self._controls, self._second = 0, now
        self._controls += count
        if self._controls > CONTROL_LIMIT:
            self._read_size = FLOODING_READ_SIZE

    async def receive(self) -> str | bytes:
        """The next message. Raises ConnectionClosed, and what the sink of ``deliver_to`` raised."""
        try:
            return await self._messages.receive()
        except trio.EndOfChannel:
            raise ConnectionClosed(self.closed) from None

    @property
    def awaited(self) -> bool:
        """Whether a task waits in ``receive`` and there is no message."""
        return self._messages.clear

    def deliver_to(self, sink: Sink[Any], work: Callable[[str | bytes], Any] | None = None) -> None:
        """As ``HandoffChannel``."""
        self._messages.deliver_to(sink, work)

    async def _run(self) -> None:
        try:
            await self._read()
        finally:
            self._unread.set()

    async def _read(self) -> None:
        """Read until the connection has ended."""
        while not self._ended:
            if self._messages.full:
                if self.on_full is not None:
                    self.on_full()
                    self.on_full = None
                await self._messages.wait_room()
            elif self._controls > CONTROL_LIMIT:
                await trio.sleep_until(self._second + 1.0)
                self._controls = 0
            elif self._epoll is not None:
                await self._wait_stopped(self._epoll)
            else:
                await self._read_some()

    async def _read_some(self) -> None:
        try:
            self._handle(bytes(await self._stream.receive_some(self._read_size)))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._handle(b"")

    async def _wait_stopped(self, reader: EpollReader) -> None:
        """Let the epoll reader read until the channel is full or the connection has ended."""
        assert self._socket is not None, "the epoll reader is for sockets"
        fileno = self._socket.fileno()
        if fileno < 0:
            self._handle(b"")
            return
        self._stopped, self._watched = trio.Event(), fileno
        reader.watch(fileno, self._on_readable)
        try:
            await self._stopped.wait()
        finally:
            self._stop_reading()
        if self._bug is not None:
            raise self._bug

    def _on_readable(self) -> None:
        assert self._watched is not None, "called while it is watched"
        try:
            self._handle(os.read(self._watched, self._read_size))
        except BlockingIOError:
            return  # nothing to read after all
        except OSError:
            self._handle(b"")
        except Exception as bug:  # raised in the connection's own task
            self._bug, self._ended = bug, True
        full = not self._messages.clear and self._messages.full
        if self._ended or full or self._controls > CONTROL_LIMIT:
            self._stop_reading()

    def _stop_reading(self) -> None:
        if self._watched is not None and self._epoll is not None:
            self._epoll.forget(self._watched)
            self._watched = None
        self._stopped.set()

    def _handle(self, data: bytes) -> None:
        """Handle bytes that were read; no bytes mean that the connection has ended."""
        self.received += len(data)
        if not data:
            self._end(CloseReason(ABNORMAL, None))
        for event in self._reader.feed(data):
            if isinstance(event, (str, bytes)):  # a union takes twice as long
                if self.closed is None:
                    self._messages.offer(event)
            else:
                self._answer_control(event)

    def _answer_control(self, event: Ping | Close) -> None:
        match event:
            case Ping(payload):
                self.note_control()
                pong = encode_pong(payload, self._key)
                if self.clear:
                    self._write_soon(pong)
                elif self.closed is None:
                    self._pong = pong
            case Close(code, reason):
                if self.closed is None:
                    self._write_soon(encode_close(code, reason, self._key))
                self._end(CloseReason(code, reason or None))

    def _end(self, reason: CloseReason) -> None:
        """Note that nothing more will come."""
        self.closed = self.closed or reason
        self._ended = True
        self._messages.close()

    # -- out ---------------------------------------------------------------------------------------

    @property
    def clear(self) -> bool:
        """Whether the connection is open and nothing waits to be sent."""
        return self.closed is None and not self._unsent and not self._torn

    def offer(self, message: str | bytes) -> None:
        """Send without waiting. Call only while ``clear``, or directly after another ``offer``."""
        if not self._write(encode_message(message, self._key)):
            self._nursery.start_soon(self._flush_quietly)

    def ping(self) -> None:
        """Send a ping without waiting. Its pong is seen only in ``received``."""
        if self.clear:
            self._write_soon(encode_ping(self._key))

    async def send(self, message: str | bytes) -> None:
        """Send, waiting until the socket has taken it all. Raises ConnectionClosed."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.closed is not None:
            raise ConnectionClosed(self.closed)
        if not self._write(encode_message(message, self._key)):
            await self._flush()

    def _write_soon(self, data: bytes) -> None:
        if not self._write(data):
            self._nursery.start_soon(self._flush_quietly)

    def _write(self, data: bytes) -> bool:
        """Write as much as the socket takes now. False: the rest is left for ``_flush``."""
        if self._socket is None or self._unsent or self._torn:
            self._unsent += data
            return False
        try:
            sent = os.write(self._socket.fileno(), data)
        except OSError:
            sent = 0  # full; or broken, as _flush will find out
        if sent < len(data):
            self._unsent += data[sent:]
        return sent == len(data)

    async def _flush(self) -> None:
        """Write all that waits. Raises ConnectionClosed."""
        try:
            async with self._sending:
                while self._unsent or self._pong:
                    if self._torn:
                        raise trio.BrokenResourceError("a frame was cut off")
                    data, self._unsent = self._unsent + self._pong, bytearray()
                    self._pong = b""
                    self._torn = True  # if this is cancelled, half a frame may have been written
                    await self._stream.send_all(data)
                    self._torn = False
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ConnectionClosed(self.closed or CloseReason(ABNORMAL, None)) from None

    async def _flush_quietly(self) -> None:
        with suppress(ConnectionClosed):  # the reader notices as well
            await self._flush()

    # -- the end -----------------------------------------------------------------------------------

    async def aclose(self, code: int = 1_000, reason: str | None = None) -> None:
        """Send a close frame and wait for the peer's. Messages that wait to be received are
        discarded. Works even if the connection's nursery has been cancelled. Never raises
        ConnectionClosed."""
        try:
            if self.closed is None:
                self.closed = CloseReason(code, reason)
                self._messages.close(discard=True)
                if not self._write(encode_close(code, reason or "", self._key)):
                    await self._flush_quietly()
            if not self._torn:
                await self._unread.wait()
                await self._read()
        finally:
            self._stop_reading()
            self._ended = True
            await self._stream.aclose()

    def abort(self) -> None:
        """Break the connection at once; tasks that wait on it get ConnectionClosed."""
        self._end(CloseReason(ABNORMAL, None))
        self._stop_reading()
        stream = self._stream
        if isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        stream.socket.close()  # type: ignore[attr-defined]  # a socket stream


def weigh(message: str | bytes) -> int:
    """Bytes of a waiting message; approximate for text that is not ASCII."""
    return len(message) + MESSAGE_WEIGHT
