"""A WebSocket client connection that owns its TCP stream.

trio-websocket leaves the socket to the garbage collector when the server is the one that closes, so
the stream is opened and closed here. And it waits on for an answer where the server has closed
without one, or speaks something else: ``_Answering`` raises.
"""

import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

import trio
from attrs import define
from h11 import LocalProtocolError
from trio_websocket import WebSocketConnection, wrap_client_stream

from ssasr.net.http_client import connect
from ssasr.runtime.process import plain_nursery

OPEN_DEADLINE = 10.0
"""Seconds for TCP, TLS and the handshake, unless the caller says otherwise."""
CLOSE_DEADLINE = 2.0
"""Seconds for the closing handshake, when it is ours to start."""


class NoAnswer(ConnectionError):
    """The server takes connections, and does not answer as HTTP servers do."""


@define(eq=False)
class _Answering(trio.abc.Stream):
    """``inner``, whose end is an error until the server has answered."""

    inner: trio.abc.Stream
    answered: bool = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        with self._open():
            data = bytes(await self.inner.receive_some(max_bytes))
            if not (data or self.answered):
                raise trio.BrokenResourceError
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._open():
            await self.inner.send_all(data)

    @contextmanager
    def _open(self) -> Iterator[None]:
        try:
            yield
        except trio.BrokenResourceError:
            if self.answered:
                raise
            raise NoAnswer("the server closed the connection without an answer") from None

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.inner.aclose()


async def _connect(
    host: str, port: int, tls: ssl.SSLContext | None, *, secure: bool
) -> trio.abc.Stream:
    """Raises OSError, ssl.SSLError and NoAnswer among it."""
    context = (tls or ssl.create_default_context()) if secure else None
    try:
        return await connect(host, port, context, host)
    except trio.BrokenResourceError as broken:
        if isinstance(broken.__cause__, ssl.SSLError):
            raise broken.__cause__ from None
        raise NoAnswer("the server closed the connection during the TLS handshake") from broken


@asynccontextmanager
async def connect_websocket(
    url: str,
    *,
    headers: Sequence[tuple[bytes, bytes]] = (),
    subprotocols: Sequence[str] = (),
    unread: int = 64,
    max_message_size: int = 1 << 20,
    tls: ssl.SSLContext | None = None,
    open_within: float = OPEN_DEADLINE,
) -> AsyncIterator[WebSocketConnection]:
    """``url``: ws or wss. ``unread``: messages held for a reader that is busy; pongs wait behind
    them. Raises OSError if there is no connection, ``trio_websocket.HandshakeError`` if it is
    refused, ``trio.TooSlowError`` after ``open_within`` seconds. (A deadline around entering this
    context would have to stay around its whole body: a nursery may not outlive its scope.)"""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "wss" else 80)
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    deadline = trio.current_time() + open_within
    with trio.fail_at(deadline):
        stream = await _connect(host, port, tls, secure=parts.scheme == "wss")
    try:
        answering = _Answering(stream)
        async with plain_nursery() as nursery:
            with trio.fail_at(deadline):
                websocket = await wrap_client_stream(
                    nursery,
                    answering,  # type: ignore[arg-type]  # any stream will do
                    parts.netloc,
                    resource,
                    subprotocols=list(subprotocols),
                    extra_headers=list(headers),
                    message_queue_size=unread,
                    max_message_size=max_message_size,
                )
            answering.answered = True
            try:
                yield websocket
            finally:
                with trio.move_on_after(CLOSE_DEADLINE, shield=True):
                    await websocket.aclose()
                nursery.cancel_scope.cancel()
    except LocalProtocolError:
        # What trio-websocket makes of an answer that is no HTTP: it tries to refuse it.
        raise NoAnswer("what answers there is no HTTP server") from None
    finally:
        await trio.aclose_forcefully(stream)
