"""A WebSocket client connection that owns its TCP stream.

trio-websocket leaves the socket to the garbage collector when the server is the one that closes, so
the stream is opened and closed here.
"""

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

from ssasr.runtime.process import plain_nursery

Connected = trio.SocketStream | trio.SSLStream[trio.SocketStream]

OPEN_DEADLINE = 10.0
"""Seconds for TCP, TLS and the handshake, unless the caller says otherwise."""
CLOSE_DEADLINE = 2.0
"""Seconds for the closing handshake, when it is ours to start."""


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
        stream: Connected = await trio.open_tcp_stream(host, port)
    try:
        if parts.scheme == "wss":
            context = tls or ssl.create_default_context()
            assert isinstance(stream, trio.SocketStream), "TLS goes over TCP"
            stream = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
        async with plain_nursery() as nursery:
            with trio.fail_at(deadline):
                websocket = await wrap_client_stream(
                    nursery,
                    stream,
                    parts.netloc,
                    resource,
                    subprotocols=list(subprotocols),
                    extra_headers=list(headers),
                    message_queue_size=unread,
                    max_message_size=max_message_size,
                )
            try:
                yield websocket
            finally:
                with trio.move_on_after(CLOSE_DEADLINE, shield=True):
                    await websocket.aclose()
                nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)
