"""The gateway's end of an engine link's WebSocket.

Half of what a gateway does is carry audio to engines and bring back their answers, and half of that
was trio-websocket: a reader task and a channel between the socket and whoever waits for the answer,
masking, and events for every frame. The other end is always an engine of ours (through a proxy that
only copies), so ``protocol.frames`` is enough, and whoever wants a message reads the socket itself.
Faults come as trio-websocket's exceptions; ``link`` knows those.

Nothing reads, and so no ping is answered, unless somebody is in ``get_message``; whoever uses this
must not leave it for long (``routing.failover`` has room for every answer that may be under way).
"""

import secrets
from collections import deque
from contextlib import suppress

import h11
import trio
from attrs import define, field
from trio_websocket import CloseReason, ConnectionClosed, ConnectionRejected

from ssasr.errors import EngineUnavailable
from ssasr.protocol.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    FrameReader,
    WireError,
    check_answer,
    encode_frame,
    handshake,
)

RECEIVE_SIZE = 65_536
BROKEN = CloseReason(1006, None)


@define(eq=False)
class EngineSocket:
    """Any task may send; one receives. Also the link's ``Connection``."""

    stream: trio.abc.Stream
    reader: FrameReader
    subprotocol: str | None = None
    received: int = 0
    """Bytes so far."""
    _messages: deque[str | bytes] = field(factory=deque)
    _closed: CloseReason | None = None
    _sending: trio.StrictFIFOLock = field(factory=trio.StrictFIFOLock)
    _owed: bytes = b""
    """Control frames for whoever is sending to send too."""

    async def get_message(self) -> str | bytes:
        """Raises ConnectionClosed."""
        while not self._messages:
            if self._closed is not None:
                raise ConnectionClosed(self._closed)
            await self._read()
        return self._messages.popleft()

    async def send_message(self, message: str | bytes) -> None:
        """Raises ConnectionClosed."""
        if type(message) is bytes:
            await self._send(encode_frame(BINARY, message))
        else:
            assert isinstance(message, str), "a message is text or bytes"
            await self._send(encode_frame(TEXT, message.encode()))

    async def ping(self) -> None:
        """Ask for a sign of life; ``received`` shows it. Raises ConnectionClosed."""
        await self._send(encode_frame(PING, b""))

    async def aclose(self, code: int = 1000, reason: str | None = None) -> None:
        """Say goodbye and wait for the answer; the caller has the deadline and the stream. Nobody
        else may be receiving. Raises ConnectionClosed if it is closed already."""
        payload = code.to_bytes(2, "big") + (reason or "").encode()[:123]
        await self._send(encode_frame(CLOSE, payload))
        while self._closed is None:
            await self._read()

    def abort(self) -> None:
        """Break the connection at once; whoever waits on it is freed."""
        abort(self.stream)

    async def take(self, data: bytes | bytearray) -> None:
        """What came from the network. Raises WireError, UnicodeDecodeError."""
        for frame in self.reader.feed(data):
            if frame.opcode == TEXT:
                self._messages.append(frame.payload.decode())
            elif frame.opcode == BINARY:
                self._messages.append(frame.payload)
            elif frame.opcode == CLOSE:
                self._closed = CloseReason(frame.close_code, frame.close_reason)
            elif frame.opcode == PING:
                await self._send_soon(encode_frame(PONG, frame.payload))

    async def _read(self) -> None:
        try:
            data = await self.stream.receive_some(RECEIVE_SIZE)
            if not data:
                self._closed = self._closed or BROKEN
                return
            self.received += len(data)
            await self.take(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._closed = self._closed or BROKEN
        except (WireError, UnicodeDecodeError) as error:
            self._closed = CloseReason(1002, str(error))

    async def _send(self, data: bytes) -> None:
        """Raises ConnectionClosed."""
        if self._closed is not None:
            raise ConnectionClosed(self._closed)
        if self._sending.locked():
            await self._sending.acquire()
        else:
            self._sending.acquire_nowait()  # without the trip through the scheduler
        try:
            await self.stream.send_all(data)
            while self._owed:
                owed, self._owed = self._owed, b""
                await self.stream.send_all(owed)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._closed = self._closed or BROKEN
            raise ConnectionClosed(self._closed) from None
        finally:
            self._sending.release()

    async def _send_soon(self, data: bytes) -> None:
        """At once, or with what is being sent: the reader must not wait for a writer."""
        if self._sending.locked():
            self._owed += data
            return
        with suppress(ConnectionClosed):  # the next read says so
            await self._send(data)


def abort(stream: trio.abc.Stream) -> None:
    """Close the socket under ``stream``, now."""
    if isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    stream.socket.close()  # type: ignore[attr-defined]  # a socket stream


async def open_socket(
    stream: trio.abc.Stream,
    host: str,
    path: str,
    headers: dict[str, str],
    limit: int,
) -> EngineSocket:
    """The handshake. Raises EngineUnavailable if the peer goes away, ConnectionRejected for an
    answer that is no upgrade."""
    key = secrets.token_bytes(16)
    await stream.send_all(handshake(host, path, key, headers))
    answer = h11.Connection(h11.CLIENT)
    answer.send(h11.Request(method="GET", target=path, headers=_upgrade(host)))
    answer.send(h11.EndOfMessage())
    try:
        return await _read_answer(stream, answer, key, limit)
    except (h11.RemoteProtocolError, WireError, trio.BrokenResourceError) as error:
        raise EngineUnavailable(
            f"the connection was closed during the handshake ({error})"
        ) from None


def _upgrade(host: str) -> list[tuple[str, str]]:
    return [("Host", host), ("Connection", "Upgrade"), ("Upgrade", "websocket")]


async def _read_answer(
    stream: trio.abc.Stream, answer: h11.Connection, key: bytes, limit: int
) -> EngineSocket:
    response: h11.Response | None = None
    body = b""
    while True:
        event = answer.next_event()
        match event:
            case h11.InformationalResponse(status_code=101):
                fields = {name: value.decode("latin-1") for name, value in event.headers}
                accept = fields.get(b"sec-websocket-accept", "")
                check_answer(f"HTTP/1.1 101\r\nSec-WebSocket-Accept: {accept}".encode(), key)
                subprotocol = fields.get(b"sec-websocket-protocol")
                socket = EngineSocket(stream, FrameReader(limit), subprotocol)
                await socket.take(answer.trailing_data[0])
                return socket
            case h11.Response():
                response = event
            case h11.Data():
                body += bytes(event.data)
            case h11.EndOfMessage():
                assert response is not None, "a body comes after its head"
                raise ConnectionRejected(response.status_code, tuple(response.headers), body)
            case h11.ConnectionClosed():
                raise h11.RemoteProtocolError("nothing was answered")
            case _:
                answer.receive_data(bytes(await stream.receive_some(4_096)))
