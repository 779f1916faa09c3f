"""The opening handshake of a WebSocket, for both ends (RFC 6455, section 4)."""

from collections.abc import Callable, Sequence
from typing import NoReturn

import trio
from attrs import frozen
from trio_websocket import ConnectionRejected, HandshakeError
from wsproto import ConnectionType
from wsproto.events import AcceptConnection, Event, RejectConnection, RejectData, Request
from wsproto.handshake import H11Handshake
from wsproto.utilities import RemoteProtocolError

from ssasr.net.websocket import MESSAGE_LIMIT, WebSocket

HEAD_END = b"\r\n\r\n"
LONGEST_ANSWER = 64 * 1024
"""Bytes of an answer to a handshake."""

Headers = Sequence[tuple[bytes, bytes]]


class BrokenHandshake(HandshakeError):
    """The peer sent something that is not a WebSocket handshake."""


@frozen(eq=False)
class UpgradeRequest:
    """A client's request for a WebSocket. The names in ``headers`` are in lower case. Call exactly
    one of ``accept`` and ``reject``."""

    path: str
    headers: Headers
    subprotocols: Sequence[str]
    peer: str
    """The client's IP address."""
    _stream: trio.abc.Stream
    _handshake: H11Handshake
    _rest: bytes

    async def accept(
        self,
        nursery: trio.Nursery,
        *,
        subprotocol: str | None = None,
        ahead: int | Callable[[], int] = MESSAGE_LIMIT,
    ) -> WebSocket:
        """Answer 101. ``nursery``, ``ahead``: see ``WebSocket``. Raises
        trio.BrokenResourceError."""
        answer = self._handshake.send(AcceptConnection(subprotocol=subprotocol))
        await self._stream.send_all(answer)
        return WebSocket(self._stream, nursery, client=False, head=self._rest, ahead=ahead)

    async def reject(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """Answer with an HTTP status. Raises trio.BrokenResourceError."""
        length = (b"Content-Length", str(len(body)).encode())
        head = RejectConnection(status_code=status, headers=[*headers, length], has_body=True)
        answer = self._handshake.send(head)
        await self._stream.send_all(answer + self._handshake.send(RejectData(data=body)))


def address_of(stream: trio.abc.Stream) -> str:
    """The peer's IP address; "" if the connection has already ended, or is not TCP."""
    if isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if not isinstance(stream, trio.SocketStream):
        return ""
    try:
        return str(stream.socket.getpeername()[0])
    except OSError:
        return ""


async def read_upgrade(stream: trio.abc.Stream, head: bytes) -> UpgradeRequest:
    """Parse the request for a WebSocket. ``head``: what was read of ``stream``, at least a whole
    request head. Raises BrokenHandshake for anything else, after answering it;
    trio.BrokenResourceError."""
    handshake = H11Handshake(ConnectionType.SERVER)
    end = head.index(HEAD_END) + len(HEAD_END)
    try:
        handshake.receive_data(head[:end])
        (event,) = handshake.events()
    except RemoteProtocolError as broken:
        if broken.event_hint is not None:
            await stream.send_all(handshake.send(broken.event_hint))
        raise BrokenHandshake from broken
    assert isinstance(event, Request), "the only event of a server's handshake"
    headers = [(name.lower(), bytes(value)) for name, value in event.extra_headers]
    peer = address_of(stream)
    return UpgradeRequest(
        event.target, headers, event.subprotocols, peer, stream, handshake, bytes(head[end:])
    )


async def open_websocket(
    stream: trio.abc.Stream,
    nursery: trio.Nursery,
    host: str,
    path: str,
    *,
    subprotocol: str,
    headers: Headers = (),
) -> tuple[WebSocket, Headers]:
    """Ask for a WebSocket that speaks ``subprotocol``; with it come the headers of the answer,
    their names in lower case. Raises ConnectionRejected for an ordinary
    HTTP answer, BrokenHandshake, trio.BrokenResourceError."""
    handshake = H11Handshake(ConnectionType.CLIENT)
    asked = Request(host=host, target=path, subprotocols=[subprotocol], extra_headers=list(headers))
    await stream.send_all(handshake.send(asked))
    answer = await _receive(stream)
    while HEAD_END not in answer:
        answer += await _receive(stream)
        if len(answer) > LONGEST_ANSWER:
            raise BrokenHandshake
    end = answer.index(HEAD_END) + len(HEAD_END)
    (event,) = _events(handshake, answer[:end])
    if isinstance(event, RejectConnection):
        await _raise_rejection(stream, handshake, event, answer[end:])
    if not isinstance(event, AcceptConnection) or event.subprotocol != subprotocol:
        raise BrokenHandshake(f"it does not speak {subprotocol}")
    websocket = WebSocket(stream, nursery, client=True, head=answer[end:])
    return websocket, [(name.lower(), bytes(value)) for name, value in event.extra_headers]


async def _raise_rejection(
    stream: trio.abc.Stream, handshake: H11Handshake, rejected: RejectConnection, data: bytes
) -> NoReturn:
    body = b""
    while rejected.has_body and len(body) <= LONGEST_ANSWER:
        parts = [part for part in _events(handshake, data) if isinstance(part, RejectData)]
        body += b"".join(part.data for part in parts)
        if any(part.body_finished for part in parts):
            break
        data = await _receive(stream)
    raise ConnectionRejected(rejected.status_code, tuple(rejected.headers), body)


def _events(handshake: H11Handshake, data: bytes) -> list[Event]:
    try:
        handshake.receive_data(data)
    except RemoteProtocolError as broken:
        raise BrokenHandshake(str(broken)) from broken
    return list(handshake.events())


async def _receive(stream: trio.abc.Stream) -> bytes:
    data = await stream.receive_some(LONGEST_ANSWER)
    if not data:
        raise trio.BrokenResourceError("the connection was closed during the handshake")
    return bytes(data)
