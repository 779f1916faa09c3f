"""A WebSocket of trio-websocket's whose plain data frames take a shorter way.

The library reads from and writes to an ``ExpressStream``, which knows where frames begin. A plain
message (``frames``) goes straight to ``sink`` in the task that read it (for sockets that of the
``doorbell``, else the library's own), if the sink takes it; all else goes on to the library, which
keeps what it keeps, answers pings and closes. A message is never told before one that came earlier:
while any that the library was given has not been taken out of it, all go that way. Sent messages
are made into frames here and never wait while the socket takes them; what it does not take at once
is kept in order, the library's own frames included.
"""

import os
from collections.abc import Callable
from contextlib import suppress

import trio
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection

from ssasr.net.epoll_reader import Doorbell, the_doorbell
from ssasr.net.frames import NO_MASK, FrameCutter, encode_message, encode_ping

READ_SIZE = 16 * 1024
LONGEST_HEAD = 64 * 1024
"""Bytes of a handshake after which no frame is looked for."""
Sink = Callable[[str | bytes], bool]


class ExpressStream(trio.abc.Stream):
    """``client``: which end of the WebSocket we are; ``head``: bytes that were read already.

    A client's data frames carry a mask that changes nothing. A random one keeps a script in a
    browser from choosing the bytes that go over the wire, for the sake of proxies that do not know
    WebSockets (RFC 6455, section 10.3); here both ends and all between are the operator's own."""

    def __init__(self, stream: trio.abc.Stream, *, client: bool, head: bytes = b"") -> None:
        self.received = 0
        """Bytes so far; any byte is a sign of life."""
        self.sink: Sink | None = None
        self.slow = 0
        """Messages that the library has been given and nobody has taken out of it."""
        self._stream = stream
        self._socket = stream.socket if isinstance(stream, trio.SocketStream) else None
        self._key = NO_MASK if client else None
        self._cutter = FrameCutter(masked=not client)
        self._handshake: bytes | None = b""
        """Its beginning, until it is over."""
        self._told = bytearray()
        """For the library to read."""
        self._unsent = bytearray()
        self._sending = trio.StrictFIFOLock()
        self._torn = False
        self._bell = None if self._socket is None else the_doorbell()
        self._watched: int | None = None
        """The socket's number, while the bell watches it."""
        self._rung = trio.Event()
        self._fault: Exception | None = None
        """What the bell came upon."""
        if head:
            self._take(head)

    # -- in ----------------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """For the library: what is not for the sink."""
        if not self._told and not await self._wait_told():
            return b""
        size = max_bytes or len(self._told)
        data = self._told[:size]
        del self._told[:size]
        await trio.lowlevel.checkpoint()
        return data

    async def _wait_told(self) -> bool:
        """Until there is something for the library. False: the connection has ended."""
        if self._bell is not None:
            await self._wait_rung(self._bell)
        else:
            while not self._told and (data := await self._stream.receive_some(READ_SIZE)):
                self._take(bytes(data))
        return bool(self._told)

    async def _wait_rung(self, bell: Doorbell) -> None:
        """Have the bell read, until it has come upon something that is not the sink's."""
        assert self._socket is not None, "the bell is for sockets"
        fileno = self._socket.fileno()
        if fileno < 0:
            raise trio.ClosedResourceError
        self._rung, self._watched, self._fault = trio.Event(), fileno, None
        bell.watch(fileno, self._ring)
        try:
            await self._rung.wait()
        finally:
            self._leave_bell()
        if self._fault is not None:
            raise self._fault

    def _ring(self) -> None:
        assert self._watched is not None, "rung while it is watched"
        try:
            data = os.read(self._watched, READ_SIZE)
            if data:
                self._take(data)
        except BlockingIOError:
            return  # somebody else's news
        except OSError as error:
            data, self._fault = b"", trio.BrokenResourceError(str(error))
        except Exception as bug:  # which is for the connection's own task to raise
            data, self._fault = b"", bug
        if self._told or not data:
            self._leave_bell()

    def _leave_bell(self) -> None:
        if self._watched is not None and self._bell is not None:
            self._bell.forget(self._watched)
            self._watched = None
        self._rung.set()

    def _take(self, data: bytes) -> None:
        self.received += len(data)
        self._sort(data)

    def _sort(self, data: bytes) -> None:
        if self._handshake is not None:
            data = self._pass_handshake(data)
        sink = self.sink
        if sink is not None and not self.slow and not self._told:
            message = self._cutter.whole(data)
            if message is not None:
                if not sink(message):
                    self._tell(data, ends=True)
                return
        for piece in self._cutter.feed(data):
            if piece.is_our_pong:
                continue
            if piece.message is None or self.slow or self.sink is None or self._told:
                self._tell(piece.raw, ends=piece.ends)
            elif not self.sink(piece.message):
                self._tell(piece.raw, ends=True)

    def _tell(self, raw: bytes, *, ends: bool) -> None:
        self._told += raw
        self.slow += ends

    def _pass_handshake(self, data: bytes) -> bytes:
        """Hand it to the library; what is left are frames."""
        assert self._handshake is not None, "asked while it lasts"
        known = len(self._handshake)
        head = self._handshake + data
        end = head.find(b"\r\n\r\n", max(known - 3, 0))
        if end < 0:
            self._handshake = head[:LONGEST_HEAD]
            self._told += data
            return b""
        self._handshake = None
        self._told += head[known : end + 4]
        return head[end + 4 :]

    # -- out ---------------------------------------------------------------------------------------

    @property
    def clear(self) -> bool:
        """Nothing waits to be sent."""
        return not self._unsent and not self._torn

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
                if self._torn:
                    raise trio.BrokenResourceError("a frame was cut off")
                data, self._unsent = self._unsent, bytearray()
                self._torn = True  # if this is cancelled, nothing more can follow
                await self._stream.send_all(data)
                self._torn = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """For the library."""
        self._unsent += data
        await self.flush()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        self._close_bell()
        await self._stream.aclose()

    def _close_bell(self) -> None:
        if self._watched is not None:
            self._fault = trio.ClosedResourceError()
            self._leave_bell()

    def abort(self) -> None:
        """Break the connection at once; whoever waits on it is freed."""
        self._close_bell()
        stream = self._stream
        if isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        stream.socket.close()  # type: ignore[attr-defined]  # a socket stream


class ExpressSocket:
    """``websocket``: a connection whose stream is ``stream``. ``nursery``: its own, for what the
    socket does not take at once."""

    def __init__(
        self, websocket: WebSocketConnection, stream: ExpressStream, nursery: trio.Nursery
    ) -> None:
        self.websocket = websocket
        self.stream = stream
        self._nursery = nursery

    def listen(self, sink: Sink) -> None:
        """``sink`` is told every message as it comes and says whether it took it. It must not
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
        self.stream.slow -= 1
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
