"""One connection from the request that asks for a WebSocket to its end, on either server."""

from collections.abc import Awaitable, Callable

import trio
from trio_websocket import HandshakeError

from ssasr.net.handshake import UpgradeRequest, read_upgrade
from ssasr.net.websocket import ConnectionClosed
from ssasr.runtime.process import plain_nursery
from ssasr.telemetry.logs import get_logger

UPGRADE_SECONDS = 10.0
"""To read and check a handshake whose head has arrived already."""

UpgradeHandler = Callable[[UpgradeRequest, trio.Nursery], Awaitable[None]]
"""Accepts the request, with the connection's nursery, or rejects it; returns when the connection
is over."""

log = get_logger(__name__)


async def serve_upgrade(serve: UpgradeHandler, stream: trio.abc.Stream, head: bytes) -> None:
    """``head``: what was read of the stream, a whole request head at least. Raises nothing: what
    ``serve`` or the WebSocket's own tasks raise is logged and ends this connection alone."""
    try:
        async with plain_nursery() as nursery:
            with trio.fail_after(UPGRADE_SECONDS):
                request = await read_upgrade(stream, head)
            await serve(request, nursery)
            nursery.cancel_scope.cancel()
    except (HandshakeError, ConnectionClosed, trio.TooSlowError, trio.BrokenResourceError):
        pass  # the peer has left, or never spoke WebSocket
    except Exception:
        log.exception("connection failed")
