"""HTTP/1.1 on one connection: hypercorn answers, by an ASGI callable, until a request asks for a
WebSocket.

Which request does so is not known before, because a proxy sends an upgrade on whichever of its
connections is idle. So hypercorn does not get the socket but a ``RequestStream``, which reads every
head before hypercorn does and hands over one request at a time. It also keeps what hypercorn leaves
open: deadlines for heads, bodies and writes (hypercorn writes inside a shield), and no HTTP/2 in
clear text, which nobody needs here: a second protocol is a second way in.
"""

import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, NoReturn
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

    async def run(self) -> bytes:
        """A request head that asks for a WebSocket, and what was read behind it; empty once the
        connection is done. Whoever called closes the stream."""
        requests = RequestStream(self.stream)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, requests)
            if await requests.read_request(HEAD_DEADLINE):
                await self._serve(requests)
            if not requests.upgrade:
                await requests.linger()
            nursery.cancel_scope.cancel()
        return requests.upgrade

    async def _watch(self, requests: "RequestStream") -> None:
        try:
            await self.stopping.wait()
            requests.end_when_idle()
            await trio.sleep_forever()
        finally:
            requests.cut()

    async def _serve(self, requests: "RequestStream") -> None:
        app = ASGIWrapper(_App(self.app, requests))  # type: ignore[arg-type]  # plain mappings
        server = TCPServer(app, CONFIG, WorkerContext(None), {}, requests)  # type: ignore[arg-type]
        with requests.serving:
            await server.run()


@frozen
class _NoSocket:
    """What hypercorn asks for addresses, which no app of ours needs."""

    family: int = socket.AF_UNSPEC

    def getpeername(self) -> None:
        return None

    def getsockname(self) -> None:
        return None


@define(eq=False)
class RequestStream:
    """What hypercorn takes for its socket: a connection's requests, one at a time. It ends by
    cancelling ``serving`` between two of them; the connection itself stays open."""

    stream: trio.abc.Stream
    serving: trio.CancelScope = field(factory=trio.CancelScope)
    """What hypercorn runs in."""
    upgrade: bytes = b""
    """The head that asks for a WebSocket and what was read behind it."""
    socket: _NoSocket = field(factory=_NoSocket)
    _data: bytes = b""
    """Read, and not handed over."""
    _framing: h11.Connection = field(factory=lambda: h11.Connection(h11.SERVER))
    """Finds the end of the request that is being handed over; its head is parsed."""
    _is_new: bool = False
    """Nothing of the request has been handed over."""
    _is_whole: bool = True
    """All of it has."""
    _stopping: bool = False
    _closed: bool = False
    _over: bool = False
    """hypercorn ends as soon as the app has."""
    _taken: trio.Event = field(factory=trio.Event)
    _ahead: int = 0
    """Bytes of the body that were handed over and not taken by the app."""
    _working: bool = False
    _answered: trio.Event = field(factory=trio.Event)
    _receiving: trio.CancelScope = field(factory=trio.CancelScope)
    _sending: trio.CancelScope = field(factory=trio.CancelScope)
    _watching: trio.CancelScope = field(factory=trio.CancelScope)
    _idle: trio.CancelScope = field(factory=trio.CancelScope)

    # -- its owner's ------------------------------------------------------------------------------

    async def read_request(self, wait: float) -> bool:
        """Until a request for hypercorn is there; False: none comes. ``wait``: seconds for its
        first byte."""
        if not await self._read_head(wait):
            return False
        if self._data.startswith(HTTP2_PREFACE):
            with suppress(*GONE):
                await self.send_all(HTTP2_REFUSED)
            return False
        offered = self._parse()
        if any(b"websocket" in value.lower() for value in offered):
            self.upgrade, self._data = self._data, b""
            return False
        if offered:  # HTTP/2, which hypercorn would speak
            head, _, rest = self._data.partition(HEAD_END)
            self._data = _UPGRADE.sub(b"", head + b"\r\n") + b"\r\n" + rest
            self._parse()
        self._is_new, self._is_whole = True, False
        self._ahead, self._answered = 0, trio.Event()
        return True

    def end_when_idle(self) -> None:
        self._stopping = True
        self._idle.cancel()

    def cut(self) -> None:
        """End a write, wherever it is shielded from its end."""
        self._sending.cancel()

    async def linger(self) -> None:
        """After an answer to a request that was not read to its end."""
        if self._is_whole:
            return
        with trio.move_on_after(LINGER), suppress(*GONE):
            if isinstance(self.stream, trio.abc.HalfCloseableStream):
                await self.stream.send_eof()
            while await self._read():
                pass

    async def _read_head(self, wait: float) -> bool:
        """Until a whole head is there, or more than one may be; False: none comes."""
        with trio.CancelScope() as self._idle:
            if self._stopping:
                return False
            if not self._data:
                self._idle.deadline = trio.current_time() + wait
                self._data = await self._read()
        if not self._data:
            return False
        with trio.move_on_after(HEAD_DEADLINE):
            looked = 0
            while self._data.find(HEAD_END, looked, MAX_HEAD + len(HEAD_END)) < 0:
                looked = max(len(self._data) - len(HEAD_END) + 1, 0)
                if len(self._data) > MAX_HEAD:
                    self._data = self._data[: MAX_HEAD + 1]  # hypercorn answers 431
                    break
                if not (data := await self._read()):
                    return False
                self._data += data
            return True
        return False

    def _parse(self) -> list[bytes]:
        """The protocols that the request wants to change to. A head that is none has none;
        hypercorn says what is wrong with it."""
        self._framing = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        with suppress(h11.RemoteProtocolError):
            self._framing.receive_data(self._data)
            request = self._framing.next_event()
            if isinstance(request, h11.Request):
                return [value for name, value in request.headers if name == b"upgrade"]
        return []

    async def _read(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(READ_SIZE))
        except GONE:
            return b""

    # -- the app's, by ``_App`` -------------------------------------------------------------------

    def work(self) -> None:
        self._working = True

    def take(self, size: int) -> None:
        """The app has taken so many bytes of its request's body."""
        self._ahead -= size
        self._taken.set()

    def answered(self, *, whole: bool) -> None:
        """The app is done. Not ``whole``: in the middle of its answer, and hypercorn closes."""
        self._working = False
        if whole:
            self._answered.set()
        self._watching.cancel()
        if self._over:
            self.serving.cancel()

    # -- hypercorn's ------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """More of the request; the next one once it has been answered. Empty: the client has gone.
        ``max_bytes``: of a read, not of what is left of the one before."""
        with trio.CancelScope() as self._receiving:
            if self._closed:
                await self._end()
            if self._is_whole and await self._wait_answered():
                if not await self.read_request(KEEP_ALIVE):
                    await self._end()
                return self._hand_over()
            if self._is_new or (not self._is_whole and await self._read_body()):
                return self._hand_over()
            self._over = True
            return b""
        return await self._end()

    async def _wait_answered(self) -> bool:
        """False: the client has gone. What it sends meanwhile is its next request."""
        while not self._answered.is_set() and len(self._data) <= MAX_HEAD:
            with trio.CancelScope() as self._watching:
                if not (data := await self._read()):
                    return False
                self._data += data
        await self._answered.wait()
        return True

    async def _read_body(self) -> bool:
        """False: it does not come."""
        while self._ahead > BODY_AHEAD:
            self._taken = trio.Event()
            await self._taken.wait()
        with trio.move_on_after(BODY_DEADLINE):
            self._data = await self._read()
        return bool(self._data)

    def _hand_over(self) -> bytes:
        """What has been read of the request."""
        data, self._data = self._data, b""
        try:
            if not self._is_new:
                self._framing.receive_data(data)
            while not self._is_whole:
                event = self._framing.next_event()
                if isinstance(event, h11.Data):
                    self._ahead += len(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    self._data = self._framing.trailing_data[0]
                    self._is_whole = True
                else:
                    break
        except h11.RemoteProtocolError:  # as hypercorn will find, answer and close
            pass
        self._is_new = False
        return data[: len(data) - len(self._data)]

    async def _end(self) -> NoReturn:
        self._over = True
        if not self._working:
            self.serving.cancel()
        await trio.sleep_forever()
        raise AssertionError("it was cancelled")

    async def send_all(self, data: bytes) -> None:
        """Raises trio.BrokenResourceError."""
        if not self._closed:
            with trio.move_on_after(SEND_DEADLINE) as self._sending, suppress(*GONE):
                await self.stream.send_all(data)
                return
            await self.aclose()
        raise trio.BrokenResourceError("the client does not read")

    async def send_eof(self) -> None:
        """Nothing: whoever owns the connection decides."""

    async def aclose(self) -> None:
        """No more requests."""
        self._closed = True
        self._receiving.cancel()


@frozen(eq=False)
class _App:
    """The ASGI callable, as hypercorn calls it."""

    app: AsgiApp
    requests: RequestStream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, query = split_target(
            (scope["raw_path"] + b"?" + scope["query_string"]).decode("ascii")
        )
        scope["path"], scope["raw_path"] = unquote(path), path.encode()
        scope["query_string"] = query.encode()
        exchange = _Exchange(self.requests, receive, send)
        self.requests.work()
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except Exception:  # an app's bug is not the server's end
            log.exception("request failed", path=path)
            await exchange.fail()
        finally:
            self.requests.answered(whole=exchange.is_whole)


@define(eq=False)
class _Exchange:
    requests: RequestStream
    _receive: Receive
    _send: Send
    is_begun: bool = False
    is_whole: bool = False
    """The last of the answer has been sent."""

    async def receive(self) -> Event:
        event = await self._receive()
        self.requests.take(len(event.get("body", b"")))
        return event

    async def send(self, event: Event) -> None:
        self.is_begun = True
        await self._send(event)
        self.is_whole = event["type"] == "http.response.body" and not event.get("more_body")

    async def fail(self) -> None:
        if not self.is_begun:
            headers = [(b"content-length", b"0")]
            await self.send({"type": "http.response.start", "status": 500, "headers": headers})
            await self.send({"type": "http.response.body"})
