"""A WebSocket whose plain data frames bypass trio-websocket.

The library reads from and writes to a ``RawWebSocketStream``, which knows where frames begin. A
plain message goes straight to ``sink`` in the task that read it: that of the
``epoll_reader`` for sockets, the library's own otherwise. Everything else, and every message that
the sink does not accept, goes to the library, which answers pings and closes. The order is kept:
while the library holds one that has not been taken out of it, all others go that way too.
Sent messages are encoded here and never wait while the socket takes them; what it does not take at
once is kept in order, together with the library's own frames.
"""

import os
from collections.abc import Callable
from contextlib import suppress

import trio
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection

from ssasr.net.epoll_reader import EpollReader, current_reader
from ssasr.net.frames import NO_MASK, FrameSplitter, encode_message, encode_ping

READ_SIZE = 16 * 1024
LONGEST_HEAD = 64 * 1024
"""Bytes of a handshake after which no frame is looked for."""
Sink = Callable[[str | bytes], bool]


class RawWebSocketStream(trio.abc.Stream):
    """``client``: which end of the WebSocket we are; ``head``: bytes that were read already.

    A client's data frames carry a mask that changes nothing. A random one keeps a script in a
    browser from choosing the bytes that go over the wire, for the sake of proxies that do not know
    WebSockets (RFC 6455, section 10.3); here both ends and all between are the operator's own."""

    def __init__(self, stream: trio.abc.Stream, *, client: bool, head: bytes = b"") -> None:
        self.received = 0
        """Bytes so far; any byte is a sign of life."""
        self.sink: Sink | None = None
        self.in_library = 0
        """Messages that the library has been given and nobody has taken out of it."""
        self._stream = stream
        self._socket = stream.socket if isinstance(stream, trio.SocketStream) else None
        self._key = NO_MASK if client else None
        self._splitter = FrameSplitter(masked=not client)
        self._handshake: bytes | None = b""
        """Its beginning, until it is over."""
        self._for_library = bytearray()
        """For the library to read."""
        self._unsent = bytearray()
        self._sending = trio.StrictFIFOLock()
        self._cut_off = False
        self._epoll = None if self._socket is None else current_reader()
        self._watched: int | None = None
        """The socket's number, while the bell watches it."""
        self._stopped = trio.Event()
        self._fault: Exception | None = None
        """What the bell came upon."""
        if head:
            self._accept(head)

    # -- in ----------------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """For the library: what is not for the sink."""
        if not self._for_library and not await self._wait_for_library():
            return b""
        size = max_bytes or len(self._for_library)
        data = self._for_library[:size]
        del self._for_library[:size]
        await trio.lowlevel.checkpoint()
        return data

    async def _wait_for_library(self) -> bool:
        """Until there is something for the library. False: the connection has ended."""
        if self._epoll is not None:
            await self._wait_stopped(self._epoll)
        else:
            while not self._for_library and (data := await self._stream.receive_some(READ_SIZE)):
                self._accept(bytes(data))
        return bool(self._for_library)

    async def _wait_stopped(self, reader: EpollReader) -> None:
        """Have the bell read, until it has come upon something that is not the sink's."""
        assert self._socket is not None, "the bell is for sockets"
        fileno = self._socket.fileno()
        if fileno < 0:
            raise trio.ClosedResourceError
        self._stopped, self._watched, self._fault = trio.Event(), fileno, None
        reader.watch(fileno, self._on_readable)
        try:
            await self._stopped.wait()
        finally:
            self._stop_reading()
        if self._fault is not None:
            raise self._fault

    def _on_readable(self) -> None:
        assert self._watched is not None, "rung while it is watched"
        try:
            data = os.read(self._watched, READ_SIZE)
            if data:
                self._accept(data)
        except BlockingIOError:
            return  # nothing to read after all
        except OSError as error:
            data, self._fault = b"", trio.BrokenResourceError(str(error))
        except Exception as bug:  # which is for the connection's own task to raise
            data, self._fault = b"", bug
        if self._for_library or not data:
            self._stop_reading()

    def _stop_reading(self) -> None:
        if self._watched is not None and self._epoll is not None:
            self._epoll.forget(self._watched)
            self._watched = None
        self._stopped.set()

    def _accept(self, data: bytes) -> None:
        self.received += len(data)
        self._route(data)

    def _route(self, data: bytes) -> None:
        if self._handshake is not None:
            data = self._split_handshake(data)
        sink = self.sink
        if sink is not None and not self.in_library and not self._for_library:
            message = self._splitter.whole(data)
            if message is not None:
                if not sink(message):
                    self._give_library(data, ends=True)
                return
        for part in self._splitter.feed(data):
            if part.is_our_pong:
                continue
            if part.message is None or self.in_library or self.sink is None or self._for_library:
                self._give_library(part.raw, ends=part.ends)
            elif not self.sink(part.message):
                self._give_library(part.raw, ends=True)

    def _give_library(self, raw: bytes, *, ends: bool) -> None:
        self._for_library += raw
        self.in_library += ends

    def _split_handshake(self, data: bytes) -> bytes:
        """Hand it to the library; what is left are frames."""
        assert self._handshake is not None, "asked while it lasts"
        known = len(self._handshake)
        head = self._handshake + data
        end = head.find(b"\r\n\r\n", max(known - 3, 0))
        if end < 0:
            self._handshake = head[:LONGEST_HEAD]
            self._for_library += data
            return b""
        self._handshake = None
        self._for_library += head[known : end + 4]
        return head[end + 4 :]

    # -- out ---------------------------------------------------------------------------------------

    @property
    def clear(self) -> bool:
        """Nothing waits to be sent."""
        return not self._unsent and not self._cut_off

    def offer(self, message: str | bytes) -> bool:
        """Send as much as the socket takes now; False: the rest waits for ``flush``."""
        return self._write(encode_message(message, self._key))

    def ping(self) -> bool:
        """As ``offer``. The pong counts as bytes received and no more."""
        return self._write(encode_ping(self._key))

    def _write(self, data: bytes) -> bool:
        if self._socket is None or not self.clear:
            self._unsent += data
            return False
        try:
            sent = os.write(self._socket.fileno(), data)
        except OSError:
            sent = 0  # full, or broken, which the flush will find
        if sent < len(data):
            self._unsent += data[sent:]
        return sent == len(data)

    async def flush(self) -> None:
        """Wait until all has left. Raises trio.BrokenResourceError, trio.ClosedResourceError."""
        async with self._sending:
            while self._unsent:
                if self._cut_off:
                    raise trio.BrokenResourceError("a frame was cut off")
                data, self._unsent = self._unsent, bytearray()
                self._cut_off = True  # if this is cancelled, nothing more can follow
                await self._stream.send_all(data)
                self._cut_off = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """For the library."""
        self._unsent += data
        await self.flush()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        self._close_reader()
        await self._stream.aclose()

    def _close_reader(self) -> None:
        if self._watched is not None:
            self._fault = trio.ClosedResourceError()
            self._stop_reading()

    def abort(self) -> None:
        """Break the connection at once; whoever waits on it is freed."""
        self._close_reader()
        stream = self._stream
        if isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        stream.socket.close()  # type: ignore[attr-defined]  # a socket stream


class RawWebSocket:
    """``websocket``: a connection whose stream is ``stream``. ``nursery``: its own, for what the
    socket does not take at once."""

    def __init__(
        self, websocket: WebSocketConnection, stream: RawWebSocketStream, nursery: trio.Nursery
    ) -> None:
        self.websocket = websocket
        self.stream = stream
        self._nursery = nursery

    def listen(self, sink: Sink) -> None:
        """Pass every message to ``sink``, which says whether it took it. It must not
        raise. Those it does not take, ``get_message`` gives."""
        self.stream.sink = sink

    @property
    def clear(self) -> bool:
        """A message may be offered."""
        return self.websocket.closed is None and self.stream.clear

    def offer(self, message: str | bytes) -> None:
        """Send without waiting; only while ``clear``."""
        if not self.stream.offer(message):
            self._nursery.start_soon(self._flush)

    def ping(self) -> None:
        """Without waiting."""
        if self.clear and not self.stream.ping():
            self._nursery.start_soon(self._flush)

    async def _flush(self) -> None:
        with suppress(
            trio.BrokenResourceError, trio.ClosedResourceError
        ):  # the reader finds it too
            await self.stream.flush()

    async def get_message(self) -> str | bytes:
        """Raises ConnectionClosed."""
        message = await self.websocket.get_message()
        self.stream.in_library -= 1
        return message

    async def send_message(self, message: str | bytes) -> None:
        """Raises ConnectionClosed."""
        closed = self.websocket.closed
        if closed is not None:
            raise ConnectionClosed(closed)
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.stream.offer(message):
            return
        try:
            await self.stream.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ConnectionClosed(self.websocket.closed or CloseReason(1006, None)) from None

    async def aclose(self, code: int = 1000, reason: str | None = None) -> None:
        """Raises ConnectionClosed."""
        await self.websocket.aclose(code, reason)
