"""One public port for WebSockets and HTTP.

A connection is HTTP's (``http_server``) until one of its requests asks for a WebSocket; from there
on it is the WebSocket handler's, who gets that request's head together with the stream.
"""

import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio
from attrs import define, field, frozen

from ssasr.errors import StartRefused
from ssasr.net.http_server import AsgiApp, HttpConnection

ACCEPT_BACKLOG = 1_024
WebSocketHandler = Callable[[trio.abc.Stream, bytes], Awaitable[None]]
"""Gets the stream and the request's head, read from it already."""


@frozen
class Listeners:
    """What to accept on, and the port that was bound."""

    serving: Sequence[trio.abc.Listener[trio.abc.Stream]]
    port: int


def bind_shared(host: str, port: int) -> list[socket.socket]:
    """Sockets for the addresses of ``host`` whose port other processes of the same user may bind as
    well; the kernel deals connections among those that listen. Raises OSError."""
    flags = socket.AI_PASSIVE
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    bound: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in found:
            each = socket.socket(family, kind, protocol)
            bound.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            chosen = address if port or len(bound) == 1 else (address[0], port_of(bound[0]))
            each.bind(chosen)
    except OSError:
        for each in bound:
            each.close()
        raise
    return bound


def port_of(bound: socket.socket) -> int:
    return int(bound.getsockname()[1])


def hold_port(host: str, port: int) -> list[socket.socket]:
    """Keep a port, without listening on it, for processes that will share it. Raises StartRefused
    when anybody else has it."""
    try:
        with socket.create_server((host, port), reuse_port=False):
            pass  # what shares its port with strangers would not be found out otherwise
        return bind_shared(host, port)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartRefused(f"cannot listen on {host}:{port}: {reason}") from error


async def _open_sockets(host: str, port: int, *, share: bool) -> list[trio.SocketListener]:
    if not share:
        return await trio.open_tcp_listeners(port, host=host, backlog=ACCEPT_BACKLOG)
    listeners = []
    for bound in bind_shared(host, port):
        bound.listen(ACCEPT_BACKLOG)
        listeners.append(trio.SocketListener(trio.socket.from_stdlib_socket(bound)))
    return listeners


async def open_listeners(
    host: str, port: int, tls: ssl.SSLContext | None = None, *, share: bool = False
) -> Listeners:
    """Raises StartRefused if the address cannot be bound."""
    try:
        listeners = await _open_sockets(host, port, share=share)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartRefused(f"cannot listen on {host}:{port}: {reason}") from error
    bound = listeners[0].socket.getsockname()[1]
    if tls is None:
        return Listeners(listeners, bound)
    return Listeners(
        [trio.SSLListener(listener, tls, https_compatible=True) for listener in listeners], bound
    )


def address_of(stream: trio.abc.Stream) -> str:
    """The peer's IP address; empty if the connection has already gone, or is no TCP."""
    if isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if not isinstance(stream, trio.SocketStream):
        return ""
    try:
        return str(stream.socket.getpeername()[0])
    except OSError:
        return ""


@define(eq=False)
class HttpListener:
    """Serves connections; ``app`` answers HTTP, ``websocket`` owns an upgraded stream whole.
    ``most_per_address``: connections of one IP address at once, or None."""

    app: AsgiApp
    websocket: WebSocketHandler
    most_per_address: int | None = None
    _open: Counter[str] = field(factory=Counter)
    _stopping: trio.Event = field(factory=trio.Event)

    async def run(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        drain: Callable[[], Awaitable[None]],
        *,
        leave_within: float,
        share_port: bool = False,
        task_status: trio.TaskStatus[int],
    ) -> None:
        """Serve until ``drain`` returns, which waits for the signal to stop and then for its work
        to end; connections that are still open then have ``leave_within`` seconds. Started with the
        port that was bound. Raises StartRefused."""
        listeners = await open_listeners(host, port, tls, share=share_port)
        async with trio.open_nursery() as connections:
            serve = partial(  # a list of either kind of listener is beyond trio's annotations
                trio.serve_listeners,
                self.serve,
                listeners.serving,  # type: ignore[arg-type]
                handler_nursery=connections,
            )
            async with trio.open_nursery() as accepting:
                await accepting.start(serve)
                task_status.started(listeners.port)
                await drain()
                accepting.cancel_scope.cancel()
            self._stopping.set()  # idle connections close
            connections.cancel_scope.deadline = trio.current_time() + leave_within

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection, from its first byte to its last. Raises nothing but what ``websocket``
        lets escape."""
        address = address_of(stream)
        if self.most_per_address is not None and self._open[address] >= self.most_per_address:
            await trio.aclose_forcefully(stream)  # without a word: a flood deserves no work
            return
        self._open[address] += 1
        try:
            await self._serve_admitted(stream)
        finally:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]

    async def _serve_admitted(self, stream: trio.abc.Stream) -> None:
        async with stream:
            head = await HttpConnection(stream, self.app, self._stopping).run()
            if head:
                await self.websocket(stream, head)
