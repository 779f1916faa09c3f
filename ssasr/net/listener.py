"""One port for WebSockets and HTTP.

A connection is served as HTTP (``http_server``) until a request asks for a WebSocket. Then the
WebSocket handler gets the stream together with the head of that request.
"""

import errno
import ipaddress
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

import trio
from attrs import define, field
from trio_websocket import ConnectionClosed, HandshakeError

from ssasr.errors import StartRefused
from ssasr.net.handshake import UpgradeRequest, address_of, read_upgrade
from ssasr.net.http_server import AsgiApp, HttpConnection
from ssasr.runtime.process import plain_nursery
from ssasr.telemetry.logs import get_logger

ACCEPT_BACKLOG = 1_024
EVERY_ADDRESS = "*"
"""A host name that stands for all addresses of this machine, IPv4 and IPv6."""

UPGRADE_SECONDS = 10.0
"""To read and check a handshake whose head has arrived already."""

UpgradeHandler = Callable[[UpgradeRequest, trio.Nursery], Awaitable[None]]
"""Accepts the request, with the connection's nursery, or rejects it; returns when the connection
is over."""

log = get_logger(__name__)


def bind(host: str, port: int, *, share: bool) -> list[socket.socket]:
    """Sockets bound to all addresses of ``host``, with the same port. ``share``: other processes of
    the same user may bind it too; the kernel distributes connections among those that listen.
    Raises OSError."""
    bound: list[socket.socket] = []
    try:
        name = None if host == EVERY_ADDRESS else host
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            each = _socket(family, kind, protocol)
            if each is None:
                continue
            bound.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if share:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            chosen = port or (port_of(bound[0]) if len(bound) > 1 else 0)
            each.bind((address[0], chosen, *address[2:]))
    except OSError:
        for each in bound:
            each.close()
        raise
    return bound


def _socket(family: int, kind: int, protocol: int) -> socket.socket | None:
    """A new socket; None if this machine does not have that address family (often IPv6)."""
    try:
        return socket.socket(family, kind, protocol)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return None
        raise


def is_loopback(host: str) -> bool:
    """Whether ``host`` can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def port_of(bound: socket.socket) -> int:
    return int(bound.getsockname()[1])


def hold_port(host: str, port: int) -> list[socket.socket]:
    """Reserve a port, without listening on it, for worker processes that will share it. Raises
    StartRefused if another process has it."""
    with _refusing(host, port):
        for each in bind(host, port, share=False):
            each.listen()  # also fails if another process shares the port
            each.close()
        return bind(host, port, share=True)


@contextmanager
def _refusing(host: str, port: int) -> Iterator[None]:
    """Raises StartRefused for an OSError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartRefused(f"cannot listen on {host}:{port}: {reason}") from error


def open_listeners(
    host: str, port: int, tls: ssl.SSLContext | None = None, *, share: bool = False
) -> tuple[list[trio.abc.Listener[trio.abc.Stream]], int]:
    """The listeners, and the port that was bound. Raises StartRefused if it cannot be."""
    listeners: list[trio.abc.Listener[trio.abc.Stream]] = []
    with _refusing(host, port):
        sockets = bind(host, port, share=share)
        for bound in sockets:
            bound.listen(ACCEPT_BACKLOG)
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(bound))
            secure = tls and trio.SSLListener(listener, tls, https_compatible=True)
            listeners.append(secure or listener)
    return listeners, port_of(sockets[0])


@define(eq=False)
class HttpListener:
    """Serves connections: ``app`` answers HTTP requests, ``websocket`` those that ask for a
    WebSocket. ``most_per_address``: connections from one IP address at once;
    ``most_open``: connections in all; None: no limit. Connections beyond either are closed at
    once."""

    app: AsgiApp
    websocket: UpgradeHandler
    most_per_address: int | None = None
    most_open: int | None = None
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
        listeners, bound = open_listeners(host, port, tls, share=share_port)
        async with trio.open_nursery() as connections:
            serve = partial(
                trio.serve_listeners,
                self.serve,
                listeners,
                handler_nursery=connections,
            )
            async with trio.open_nursery() as accepting:
                await accepting.start(serve)
                task_status.started(bound)
                await drain()
                accepting.cancel_scope.cancel()
            self._stopping.set()  # idle connections close
            connections.cancel_scope.deadline = trio.current_time() + leave_within

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection, from its first byte to its last. Raises nothing: what ``websocket`` or
        the WebSocket's own tasks raise is logged and ends this connection alone."""
        address = address_of(stream)
        if self._is_too_many(address):
            await trio.aclose_forcefully(stream)  # no answer: it would cost work in a flood
            return
        self._open[address] += 1
        try:
            await self._serve_admitted(stream)
        finally:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]

    def _is_too_many(self, address: str) -> bool:
        if self.most_open is not None and self._open.total() >= self.most_open:
            return True
        return self.most_per_address is not None and self._open[address] >= self.most_per_address

    async def _serve_admitted(self, stream: trio.abc.Stream) -> None:
        async with stream:
            head = await HttpConnection(stream, self.app, self._stopping).run()
            if head:
                await self._serve_upgrade(stream, head)

    async def _serve_upgrade(self, stream: trio.abc.Stream, head: bytes) -> None:
        """``head``: what was read of the stream, a whole request head at least."""
        try:
            async with plain_nursery() as nursery:
                with trio.fail_after(UPGRADE_SECONDS):
                    request = await read_upgrade(stream, head)
                await self.websocket(request, nursery)
                nursery.cancel_scope.cancel()
        except (HandshakeError, ConnectionClosed, trio.TooSlowError, trio.BrokenResourceError):
            pass  # the peer has left, or never spoke WebSocket
        except Exception:
            log.exception("connection failed")
