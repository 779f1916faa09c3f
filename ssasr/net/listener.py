"""One public port for WebSockets and HTTP.

A connection's request head is read here, under a deadline and a size limit, and decides who serves
it: an upgrade goes to trio-websocket, anything else to hypercorn (``ARCHITECTURE.md`` says why
there are two). Both get the head together with the stream.
"""

import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import h11
import trio
from attrs import define, field, frozen
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework

from ssasr.errors import StartRefused

HEAD_DEADLINE = 10.0
"""Seconds to send a whole request head; a client that dribbles is dropped."""
MAX_HEAD = 16 * 1024
"""Bytes. A request's query may hold 100 key terms of 50 characters, percent-encoded: 15 kB."""
HTTP_SEND_DEADLINE = 15.0
"""Seconds for one write to an HTTP client. hypercorn sends inside a shield without a deadline."""
KEEP_ALIVE = 15.0
"""Seconds an idle HTTP connection is kept."""
ACCEPT_BACKLOG = 1_024
TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"Connection: close\r\nContent-Length: 0\r\n\r\n"
)

WebSocketHandler = Callable[[trio.abc.Stream, bytes], Awaitable[None]]
"""Gets the stream and the request's head, read from it already."""


class ReplayedStream(trio.abc.Stream):
    """A stream whose first bytes were read already."""

    def __init__(self, stream: trio.abc.Stream, head: bytes) -> None:
        self._stream = stream
        self._head = head

    @property
    def socket(self) -> trio.socket.SocketType:
        """What hypercorn and trio-websocket ask for the addresses."""
        stream = self._stream
        if isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        return stream.socket  # type: ignore[attr-defined, no-any-return]

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._head:
            size = max_bytes or len(self._head)
            data, self._head = self._head[:size], self._head[size:]
            await trio.lowlevel.checkpoint()
            return data
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


class _HttpStream(ReplayedStream):
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(HTTP_SEND_DEADLINE):
            await super().send_all(data)
            return
        raise trio.BrokenResourceError("the client does not read")


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


def is_upgrade(head: bytes) -> bool:
    """Whether a complete request head asks for a WebSocket. A malformed head does not; hypercorn
    answers it with 400."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    try:
        connection.receive_data(head)
        request = connection.next_event()
    except h11.RemoteProtocolError:
        return False
    if not isinstance(request, h11.Request):
        return False
    upgrade = [value for name, value in request.headers if name == b"upgrade"]
    return any(value.strip().lower() == b"websocket" for value in upgrade)


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

    app: ASGIFramework
    websocket: WebSocketHandler
    most_per_address: int | None = None
    _open: Counter[str] = field(factory=Counter)
    _context: WorkerContext = field(factory=lambda: WorkerContext(None))
    _config: Config = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._config = Config()
        self._config.keep_alive_timeout = KEEP_ALIVE
        self._config.h11_max_incomplete_size = MAX_HEAD
        self._config.include_server_header = False

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
        """Serve until ``drain`` returns, which waits to be told to stop and then for its work to
        end; connections that are still open then have ``leave_within`` seconds. Started with the
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
            await self.stop_idle()
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
            head = await self._read_head(stream)
            if not head:
                return
            if not 0 <= head.find(b"\r\n\r\n") <= MAX_HEAD:
                with trio.move_on_after(HTTP_SEND_DEADLINE), suppress(trio.BrokenResourceError):
                    await stream.send_all(TOO_LARGE)
                return
            if is_upgrade(head):
                await self.websocket(stream, head)
                return
            server = TCPServer(
                ASGIWrapper(self.app), self._config, self._context, {},
                _HttpStream(stream, head),  # type: ignore[arg-type]  # it is a stream with a socket
            )  # fmt: skip
            await server.run()

    async def stop_idle(self) -> None:
        """Close HTTP connections as they become idle."""
        await self._context.terminated.set()

    async def _read_head(self, stream: trio.abc.Stream) -> bytes:
        head = b""
        with trio.move_on_after(HEAD_DEADLINE):
            try:
                while b"\r\n\r\n" not in head and len(head) <= MAX_HEAD:
                    data = await stream.receive_some()
                    if not data:
                        return b""
                    head += data
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return b""
            return head
        return b""
