"""A WebSocket: frames (``frames``) on a stream, once the handshake is over (``handshake``).

Whatever arrives is read at once, for sockets by the epoll reader and else by a task of the
connection: pings are answered, a close is noted, and messages go into the channel that ``receive``
takes them from, or past it (``runtime.handoff``). Reading pauses when that channel is full, so a
peer that sends faster than its messages are taken is held back by TCP, but not before ``ahead``
bytes: its pings wait no longer than what lies before them.

Sent messages never wait while the socket takes them; what it does not take at once is kept in
order.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import trio
from trio_websocket import CloseReason, ConnectionClosed

from ssasr.net.epoll_reader import EpollReader, current_reader
from ssasr.net.frames import (
    ABNORMAL,
    NO_MASK,
    Close,
    FrameReader,
    Ping,
    Pong,
    encode_close,
    encode_message,
    encode_ping,
    encode_pong,
)
from ssasr.runtime.handoff import HandoffChannel, Outlet, Sink, Source

__all__ = ["CloseReason", "ConnectionClosed", "MessageSocket", "WebSocket"]

READ_SIZE = 16 * 1024
MESSAGE_LIMIT = 1 << 20
"""Bytes of one message. One that is longer comes cut off, with one byte more than this."""
MESSAGE_WEIGHT = 64
"""Bytes that a message costs while it waits, beside its own."""


class MessageSocket(Source[str | bytes], Outlet[str | bytes], Protocol):
    """What sessions and links use of a WebSocket. ``receive`` and ``send`` raise
    ConnectionClosed."""

    async def aclose(self, code: int = 1000, reason: str | None = None) -> None: ...


class WebSocket:
    """``client``: which end we are; ``head``: bytes that were read already; ``nursery``: the
    connection's own; ``ahead``: bytes of messages that may wait for ``receive``.

    A client's data frames carry a mask that changes nothing. A random one keeps a script in a
    browser from choosing the bytes that go over the wire, for the sake of proxies that do not know
    WebSockets (RFC 6455, section 10.3); here both ends and all between are the operator's own."""

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
        """Bytes so far; any byte is a sign of life."""
        self.closed: CloseReason | None = None
        """Why the connection was or is being closed."""
        self._stream = stream
        self._nursery = nursery
        self._socket = stream.socket if isinstance(stream, trio.SocketStream) else None
        self._key = NO_MASK if client else None
        self._reader = FrameReader(masked=not client, limit=MESSAGE_LIMIT)
        self._messages = HandoffChannel[str | bytes](ahead, weigh)
        self._ended = False
        """Nothing more is to be read."""
        self._unread = trio.Event()
        """Nobody reads any more."""
        self._epoll = None if self._socket is None else current_reader()
        self._watched: int | None = None
        """The socket's number, while the epoll reader watches it."""
        self._stopped = trio.Event()
        self._bug: Exception | None = None
        self._unsent = bytearray()
        self._pong = b""
        """The newest that could not be sent yet; the older ones are not missed."""
        self._sending = trio.StrictFIFOLock()
        self._torn = False
        if head:
            self._take(head)
        nursery.start_soon(self._run)

    # -- in ----------------------------------------------------------------------------------------

    async def receive(self) -> str | bytes:
        """Raises ConnectionClosed, and what a taker raised."""
        try:
            return await self._messages.receive()
        except trio.EndOfChannel:
            raise ConnectionClosed(self.closed) from None

    @property
    def awaited(self) -> bool:
        """Somebody waits in ``receive``, and nothing is there."""
        return self._messages.clear

    def deliver_to(self, sink: Sink[str | bytes]) -> None:
        self._messages.deliver_to(sink)

    async def _run(self) -> None:
        try:
            await self._read()
        finally:
            self._unread.set()

    async def _read(self) -> None:
        """Until the connection has ended."""
        while not self._ended:
            if self._messages.full:
                await self._messages.wait_room()
            elif self._epoll is not None:
                await self._wait_stopped(self._epoll)
            else:
                await self._read_some()

    async def _read_some(self) -> None:
        try:
            self._take(bytes(await self._stream.receive_some(READ_SIZE)))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._take(b"")

    async def _wait_stopped(self, reader: EpollReader) -> None:
        """Have the epoll reader read, until there is a reason to stop."""
        assert self._socket is not None, "the epoll reader is for sockets"
        fileno = self._socket.fileno()
        if fileno < 0:
            self._take(b"")
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
            self._take(os.read(self._watched, READ_SIZE))
        except BlockingIOError:
            return  # for somebody else
        except OSError:
            self._take(b"")
        except Exception as bug:  # which is for the connection's own task to raise
            self._bug, self._ended = bug, True
        if self._ended or self._messages.full:
            self._stop_reading()

    def _stop_reading(self) -> None:
        if self._watched is not None and self._epoll is not None:
            self._epoll.forget(self._watched)
            self._watched = None
        self._stopped.set()

    def _take(self, data: bytes) -> None:
        """What was read; nothing: the connection has ended."""
        self.received += len(data)
        if not data:
            self._end(CloseReason(ABNORMAL, None))
        for event in self._reader.feed(data):
            if isinstance(event, (str, bytes)):  # a union takes twice as long
                if self.closed is None:
                    self._messages.offer(event)
            else:
                self._obey(event)

    def _obey(self, event: Ping | Pong | Close) -> None:
        match event:
            case Ping(payload):
                self._answer(payload)
            case Close(code, reason):
                if self.closed is None:
                    self._write_soon(encode_close(code, reason, self._key))
                self._end(CloseReason(code, reason or None))
            case Pong():
                pass  # it has counted as bytes received

    def _end(self, reason: CloseReason) -> None:
        """Nothing more will come."""
        self.closed = self.closed or reason
        self._ended = True
        self._messages.close()

    # -- out ---------------------------------------------------------------------------------------

    @property
    def clear(self) -> bool:
        """Nothing waits to be sent."""
        return self.closed is None and not self._unsent and not self._torn

    def offer(self, message: str | bytes) -> None:
        """Send without waiting; only while ``clear``, or right behind another."""
        if not self._write(encode_message(message, self._key)):
            self._nursery.start_soon(self._flush_quietly)

    def ping(self) -> None:
        """Without waiting. The pong counts as bytes received and no more."""
        if self.clear:
            self._write_soon(encode_ping(self._key))

    def _answer(self, payload: bytes) -> None:
        pong = encode_pong(payload, self._key)
        if self.clear:
            self._write_soon(pong)
        elif self.closed is None:
            self._pong = pong

    async def send(self, message: str | bytes) -> None:
        """Raises ConnectionClosed."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.closed is not None:
            raise ConnectionClosed(self.closed)
        if not self._write(encode_message(message, self._key)):
            await self._flush()

    def _write_soon(self, data: bytes) -> None:
        if not self._write(data):
            self._nursery.start_soon(self._flush_quietly)

    def _write(self, data: bytes) -> bool:
        """Send as much as the socket takes now; False: the rest waits for a flush."""
        if self._socket is None or self._unsent or self._torn:
            self._unsent += data
            return False
        try:
            sent = os.write(self._socket.fileno(), data)
        except OSError:
            sent = 0  # full, or broken, which the flush will find
        if sent < len(data):
            self._unsent += data[sent:]
        return sent == len(data)

    async def _flush(self) -> None:
        """Wait until all has left. Raises ConnectionClosed."""
        try:
            async with self._sending:
                while self._unsent or self._pong:
                    if self._torn:
                        raise trio.BrokenResourceError("a frame was cut off")
                    data, self._unsent = self._unsent + self._pong, bytearray()
                    self._pong = b""
                    self._torn = True  # if this is cancelled, nothing more can follow
                    await self._stream.send_all(data)
                    self._torn = False
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ConnectionClosed(self.closed or CloseReason(ABNORMAL, None)) from None

    async def _flush_quietly(self) -> None:
        with suppress(ConnectionClosed):  # which the reader finds too
            await self._flush()

    # -- the end -----------------------------------------------------------------------------------

    async def aclose(self, code: int = 1_000, reason: str | None = None) -> None:
        """Say goodbye, and wait for the peer to do the same. What waits to be received is
        discarded. Reads even where the connection's own task has been cancelled. Never raises
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
        """Break the connection at once; whoever waits on it is freed."""
        self._end(CloseReason(ABNORMAL, None))
        self._stop_reading()
        stream = self._stream
        if isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        stream.socket.close()  # type: ignore[attr-defined]  # a socket stream


def weigh(message: str | bytes) -> int:
    """Bytes of a message that waits; about, of a text that is not ASCII."""
    return len(message) + MESSAGE_WEIGHT
