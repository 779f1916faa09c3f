"""HTTP/1.1 on one connection: hypercorn answers, by an ASGI callable, until a request asks for a
WebSocket.

Which request does so is not known before, because a proxy sends an upgrade on whichever of its
connections is idle. So the connection reads every head itself, and hypercorn gets a ``_Request``
for its socket: one request, and no other. That also keeps what hypercorn leaves open: deadlines for
heads, bodies and writes (hypercorn writes inside a shield), and no HTTP/2 in clear text, which
nobody needs here: a second protocol is a second way in.
"""

import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

import h11
import trio
from attrs import define, field, frozen
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext

from ssasr.telemetry.logs import get_logger

HEAD_DEADLINE = 10.0
"""Seconds to send a whole request head; a client that dribbles is dropped."""
MAX_HEAD = 96 * 1024
"""Bytes. A request's query may hold 100 key terms of 50 characters, a prompt and a context: 78 kB
in Chinese, percent-encoded."""
BODY_DEADLINE = 30.0
"""Seconds without a byte of a request's body that is awaited."""
BODY_AHEAD = 256 * 1024
"""Bytes of a body that the app may leave waiting before no more is read."""
SEND_DEADLINE = 15.0
"""Seconds for one write."""
KEEP_ALIVE = 15.0
"""Seconds an idle connection is kept."""
LINGER = 2.0
"""Seconds in which what the client still sends is discarded, so that it gets to read the answer:
closing a socket with unread bytes takes back what was written to it."""
READ_SIZE = 64 * 1024
HEAD_END = b"\r\n\r\n"
HTTP2_PREFACE = b"PRI * HTTP/2"
HTTP2_REFUSED = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
_UPGRADE = re.compile(rb"^upgrade[ \t]*:.*\r\n(?:[ \t].*\r\n)*", re.IGNORECASE | re.MULTILINE)

# ASGI's own types: https://asgi.readthedocs.io/en/latest/specs/www.html
Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

log = get_logger(__name__)


def split_target(target: str) -> tuple[str, str]:
    """Path and query of a request's target, percent-encoded as they came. A target in absolute form
    is as good (RFC 9112, section 3.2.2), and so is a path with slashes too many: one SDK makes
    ``//v3/ws`` of a host that was given with a slash at its end."""
    if target.lower().startswith(("http://", "https://", "ws://", "wss://")):
        with suppress(ValueError):  # of a host that is none; the path is not to be found either
            parts = urlsplit(target)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    path, _, query = target.partition("?")
    return "/" + "/".join(part for part in path.split("/") if part), query


def _hypercorn_config() -> Config:
    config = Config()
    config.accesslog = config.errorlog = None
    config.include_server_header = False
    config.h11_max_incomplete_size = MAX_HEAD
    config.max_app_queue_size = READ_SIZE + BODY_AHEAD  # events: the limit is BODY_AHEAD
    config.keep_alive_timeout = int(2 * KEEP_ALIVE)  # never the first to find a connection idle
    return config


CONFIG = _hypercorn_config()


@define(eq=False)
class HttpConnection:
    """``stopping``: once set, the connection ends as soon as it is idle."""

    stream: trio.abc.Stream
    app: AsgiApp
    stopping: trio.Event
    data: bytes = field(init=False, default=b"")
    """Read, and not handed to hypercorn."""
    _idle: trio.CancelScope = field(factory=trio.CancelScope)
    _sending: trio.CancelScope = field(factory=trio.CancelScope)

    async def run(self) -> bytes:
        """A request head that asks for a WebSocket, and what was read behind it; empty once the
        connection is done. Whoever called closes the stream."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            upgrade = await self._serve()
            nursery.cancel_scope.cancel()
        return upgrade

    async def _watch(self) -> None:
        try:
            await self.stopping.wait()
            self._idle.cancel()
            await trio.sleep_forever()
        finally:
            self._sending.cancel()  # a write is shielded from the end of all else

    async def _serve(self) -> bytes:
        wait = HEAD_DEADLINE
        while await self._read_head(wait):
            if self.data.startswith(HTTP2_PREFACE):
                await self.send(HTTP2_REFUSED)
                break
            framing, offered = _parse(self.data)
            if any(b"websocket" in value.lower() for value in offered):
                return self.data
            if offered:  # HTTP/2, which hypercorn would speak
                head, _, rest = self.data.partition(HEAD_END)
                self.data = _UPGRADE.sub(b"", head + b"\r\n") + b"\r\n" + rest
                framing, _ = _parse(self.data)
            request = _Request(self, framing)
            await request.serve()
            if not request.is_whole:
                await self._linger()
            if not request.goes_on:
                break
            wait = KEEP_ALIVE
        return b""

    async def _read_head(self, wait: float) -> bool:
        """Until a whole head is there, or more than one may be; False: none comes. ``wait``:
        seconds for its first byte."""
        if self.stopping.is_set():
            return False
        with trio.move_on_after(wait) as self._idle:
            if not self.data:
                await self.read()
        if not self.data:
            return False
        with trio.move_on_after(HEAD_DEADLINE):
            looked = 0
            while self.data.find(HEAD_END, looked, MAX_HEAD + len(HEAD_END)) < 0:
                looked = max(len(self.data) - len(HEAD_END) + 1, 0)
                if len(self.data) > MAX_HEAD:
                    self.data = self.data[: MAX_HEAD + 1]  # hypercorn answers 431
                    break
                if not await self.read():
                    return False
            return True
        return False

    async def _linger(self) -> None:
        """After an answer to a request that was not read to its end."""
        with trio.move_on_after(LINGER), suppress(*GONE):
            if isinstance(self.stream, trio.abc.HalfCloseableStream):
                await self.stream.send_eof()
            while await self.read():
                self.data = b""

    async def read(self) -> bool:
        """Read on; False: the client has gone."""
        try:
            data = await self.stream.receive_some(READ_SIZE)
        except GONE:
            return False
        self.data += data
        return bool(data)

    async def send(self, data: bytes) -> bool:
        """False: the client does not read."""
        with trio.move_on_after(SEND_DEADLINE) as self._sending, suppress(*GONE):
            await self.stream.send_all(data)
            return True
        return False


def _parse(data: bytes) -> tuple[h11.Connection, list[bytes]]:
    """A machine that is past the request's head, and the protocols that it wants to change to. A
    head that is none has none; hypercorn says what is wrong with it."""
    framing = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    with suppress(h11.RemoteProtocolError):
        framing.receive_data(data)
        request = framing.next_event()
        if isinstance(request, h11.Request):
            return framing, [value for name, value in request.headers if name == b"upgrade"]
    return framing, []


@frozen
class _NoSocket:
    """What hypercorn asks for addresses, which no app of ours needs."""

    family: int = socket.AF_UNSPEC

    def getpeername(self) -> None:
        return None

    def getsockname(self) -> None:
        return None


@define(eq=False)
class _Request:
    """What hypercorn takes for its socket, and what it calls as its app. hypercorn is cancelled
    when the app is done, or when it has answered without the app; the connection stays open."""

    connection: HttpConnection
    _framing: h11.Connection
    """Finds the end of the request; its head is parsed."""
    socket: _NoSocket = field(factory=_NoSocket)
    is_whole: bool = False
    """All of the request has been handed over."""
    goes_on: bool = False
    """Another request may follow."""
    _is_new: bool = True
    """Nothing of it has."""
    _is_working: bool = False
    _is_begun: bool = False
    _is_last: bool = False
    """The answer says that the connection closes behind it."""
    _is_answered: bool = False
    """The last of the answer has been sent."""
    _is_closed: bool = False
    _ahead: int = 0
    """Bytes of the body that were handed over and not taken by the app."""
    _taken: trio.Event = field(factory=trio.Event)
    _serving: trio.CancelScope = field(factory=trio.CancelScope)

    async def serve(self) -> None:
        app = ASGIWrapper(self._work)  # type: ignore[arg-type]  # plain mappings
        server = TCPServer(app, CONFIG, WorkerContext(None), {}, self)  # type: ignore[arg-type]
        with self._serving:
            await server.run()

    # -- the socket -------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """More of the request. Empty: the client has gone. ``max_bytes``: of a read, not of what is
        left of the one before."""
        if self._is_closed:
            await trio.sleep_forever()
        if self._is_new or (not self.is_whole and await self._read_body()):
            return self._hand_over()
        while self.is_whole:  # what comes is the next request
            if len(self.connection.data) > MAX_HEAD:
                await trio.sleep_forever()
            if not await self.connection.read():
                break
        return b""

    async def _read_body(self) -> bool:
        """False: it does not come."""
        while self._ahead > BODY_AHEAD:
            self._taken = trio.Event()
            await self._taken.wait()
        with trio.move_on_after(BODY_DEADLINE):
            return await self.connection.read()
        return False

    def _hand_over(self) -> bytes:
        """What has been read of the request."""
        data, self.connection.data = self.connection.data, b""
        try:
            if not self._is_new:
                self._framing.receive_data(data)
            while not self.is_whole:
                event = self._framing.next_event()
                if isinstance(event, h11.Data):
                    self._ahead += len(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    self.connection.data = self._framing.trailing_data[0]
                    self.is_whole = True
                else:
                    break
        except h11.RemoteProtocolError:  # as hypercorn will find, answer and close
            pass
        self._is_new = False
        return data[: len(data) - len(self.connection.data)]

    async def send_all(self, data: bytes) -> None:
        """Raises trio.BrokenResourceError."""
        if self._is_closed or not await self.connection.send(data):
            await self.aclose()
            raise trio.BrokenResourceError("the client does not read")

    async def send_eof(self) -> None:
        """Nothing: whoever owns the connection decides."""

    async def aclose(self) -> None:
        """No more requests."""
        self._is_closed = True
        if not self._is_working:
            self._serving.cancel()

    # -- the app ----------------------------------------------------------------------------------

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def take() -> Event:
            event = await receive()
            self._ahead -= len(event.get("body", b""))
            self._taken.set()
            return event

        async def answer(event: Event) -> None:
            if event["type"] == "http.response.start":
                self._is_begun = True
                self._is_last = not self.is_whole or self.connection.stopping.is_set()
                if self._is_last:  # or the client's next request may meet the close
                    event["headers"] = [*event.get("headers", ()), (b"connection", b"close")]
            await send(event)
            self._is_answered = event["type"] == "http.response.body" and not event.get("more_body")

        path, query = split_target(
            (scope["raw_path"] + b"?" + scope["query_string"]).decode("ascii")
        )
        scope["path"], scope["raw_path"] = unquote(path), path.encode()
        scope["query_string"] = query.encode()
        self._is_working = True
        try:
            await self.connection.app(scope, take, answer)
        except Exception:  # an app's bug is not the server's end
            log.exception("request failed", path=path)
            if not self._is_begun:
                headers = [(b"content-length", b"0")]
                await answer({"type": "http.response.start", "status": 500, "headers": headers})
                await answer({"type": "http.response.body"})
        finally:
            self._is_working = False
            self.goes_on = self._is_answered and not self._is_last and not self._is_closed
            self._serving.cancel()
