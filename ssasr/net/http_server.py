"""HTTP/1.1 on one connection: requests one after the other, each answered by an ASGI callable.

``HttpConnection.run`` returns when the connection is done, or when a request asks for a WebSocket:
that is decided anew for each request, because a proxy sends an upgrade on whichever of its
connections is idle. The protocol machine is h11's. HTTP/2 in clear text is refused: nobody needs
it here, and a second protocol is a second way in.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote, urlsplit

import h11
import trio
from attrs import define, field

from ssasr.telemetry.logs import get_logger

HEAD_DEADLINE = 10.0
"""Seconds to send a whole request head; a client that dribbles is dropped."""
MAX_HEAD = 16 * 1024
"""Bytes. A request's query may hold 100 key terms of 50 characters, percent-encoded: 15 kB."""
BODY_DEADLINE = 30.0
"""Seconds without a byte of a request's body that is awaited."""
SEND_DEADLINE = 15.0
"""Seconds for one write."""
KEEP_ALIVE = 15.0
"""Seconds an idle connection is kept."""
READ_SIZE = 64 * 1024
HTTP2_PREFACE = b"PRI * HTTP/2"
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)

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


class _Refused(Exception):
    """Not a request of ours: the status, and the connection closes."""


class _Gone(Exception):
    """The connection has ended, or is given up."""


@define(eq=False)
class HttpConnection:
    """``stopping``: once set, the connection ends as soon as it is idle."""

    stream: trio.abc.Stream
    app: AsgiApp
    stopping: trio.Event
    _data: bytes = b""
    """Read, and no request's yet."""
    _idle: trio.CancelScope = field(factory=trio.CancelScope)

    async def run(self) -> bytes:
        """A request head that asks for a WebSocket, and what was read behind it; empty once the
        connection is done. Whoever called closes the stream."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_when_stopping)
            head = await self._serve()
            nursery.cancel_scope.cancel()
        return head

    async def _end_when_stopping(self) -> None:
        await self.stopping.wait()
        self._idle.cancel()

    async def _serve(self) -> bytes:
        try:
            wait = HEAD_DEADLINE
            while await self._read_head(wait):
                request, connection = self._parse()
                if _wants_websocket(request):
                    return self._data
                exchange = _Exchange(self.stream, connection, request)
                self._data = await exchange.run(self.app)
                wait = KEEP_ALIVE
        except _Refused as refused:
            with suppress(*GONE), trio.move_on_after(SEND_DEADLINE):
                await self.stream.send_all(_plain_answer(int(str(refused))))
        except _Gone:
            pass
        return b""

    async def _read_head(self, wait: float) -> bool:
        """Until a whole head is there; False: none comes. ``wait``: seconds for its first byte."""
        with trio.CancelScope() as self._idle:
            if self.stopping.is_set():
                return False
            if not self._data:
                self._idle.deadline = trio.current_time() + wait
                self._data = await self._read()
        if not self._data:
            return False
        with trio.move_on_after(HEAD_DEADLINE):
            while b"\r\n\r\n" not in self._data:
                if len(self._data) > MAX_HEAD:
                    raise _Refused(431)
                if not (data := await self._read()):
                    return False
                self._data += data
            return True
        return False

    def _parse(self) -> tuple[h11.Request, h11.Connection]:
        if self._data.startswith(HTTP2_PREFACE):
            raise _Refused(505)
        if self._data.find(b"\r\n\r\n") > MAX_HEAD:
            raise _Refused(431)
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        try:
            connection.receive_data(self._data)
            request = connection.next_event()
        except h11.RemoteProtocolError:
            raise _Refused(400) from None
        if not isinstance(request, h11.Request):
            raise _Refused(400)
        return request, connection

    async def _read(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(READ_SIZE))
        except GONE:
            return b""


def _wants_websocket(request: h11.Request) -> bool:
    offered = [value for name, value in request.headers if name == b"upgrade"]
    return any(b"websocket" in value.lower() for value in offered)


def _plain_answer(status: int) -> bytes:
    connection = h11.Connection(h11.SERVER)
    headers = [("Content-Length", "0"), ("Connection", "close"), ("Date", _date())]
    head = h11.Response(status_code=status, headers=headers, reason=_REASONS[status])
    return connection.send(head) or b""


_REASONS: Mapping[int, bytes] = {
    400: b"Bad Request",
    431: b"Request Header Fields Too Large",
    505: b"HTTP Version Not Supported",
}


def _date() -> str:
    return formatdate(usegmt=True)


@define(eq=False)
class _Exchange:
    """One request and its response."""

    stream: trio.abc.Stream
    connection: h11.Connection
    request: h11.Request

    async def run(self, app: AsgiApp) -> bytes:
        """What was read behind the request, if another may follow. Raises _Gone."""
        try:
            await app(self._scope(), self._receive, self._send)
        except _Gone:
            raise
        except Exception:  # an app's bug is not the server's end
            log.exception("request failed", path=split_target(self.request.target.decode())[0])
        if self.connection.our_state is h11.SEND_RESPONSE:
            await self._send({"type": "http.response.start", "status": 500, "headers": ()})
            await self._send({"type": "http.response.body"})
        self._skip_end()
        if self.connection.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            raise _Gone
        return self.connection.trailing_data[0]

    def _scope(self) -> Scope:
        path, query = split_target(self.request.target.decode("ascii"))
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": self.request.http_version.decode(),
            "method": self.request.method.decode("ascii").upper(),
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name, bytes(value)) for name, value in self.request.headers],
            "client": None,
            "server": None,
        }

    def _skip_end(self) -> None:
        """The end of a request without a body, which no app asks for."""
        if self.connection.their_state is h11.SEND_BODY:
            with suppress(h11.RemoteProtocolError):
                self.connection.next_event()

    async def _receive(self) -> Event:
        """ASGI's ``receive``."""
        connection = self.connection
        if connection.they_are_waiting_for_100_continue:
            await self._write(h11.InformationalResponse(status_code=100, headers=[]))
        while connection.their_state is h11.SEND_BODY:
            event = self._next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await self._read_body())
            elif isinstance(event, h11.Data):
                return {"type": "http.request", "body": bytes(event.data), "more_body": True}
            elif isinstance(event, h11.EndOfMessage):
                return {"type": "http.request", "body": b"", "more_body": False}
        await self._wait_disconnected()
        return {"type": "http.disconnect"}

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self.connection.next_event()
        except h11.RemoteProtocolError:
            raise _Gone from None

    async def _read_body(self) -> bytes:
        """Empty at the end, which h11 judges."""
        with trio.move_on_after(BODY_DEADLINE):
            try:
                return bytes(await self.stream.receive_some(READ_SIZE))
            except GONE:
                raise _Gone from None
        raise _Gone

    async def _wait_disconnected(self) -> None:
        """Until the client has gone. What it sends meanwhile is its next request."""
        while len(self.connection.trailing_data[0]) <= MAX_HEAD:
            try:
                data = bytes(await self.stream.receive_some(READ_SIZE))
            except GONE:
                return
            if not data:
                return
            self.connection.receive_data(data)
        await trio.sleep_forever()

    async def _send(self, event: Event) -> None:
        """ASGI's ``send``."""
        if event["type"] == "http.response.start":
            headers = [*event.get("headers", ()), (b"date", _date().encode())]
            await self._write(h11.Response(status_code=event["status"], headers=headers))
            return
        body = event.get("body", b"")
        if body and self.request.method != b"HEAD":
            await self._write(h11.Data(data=body))
        if not event.get("more_body", False):
            await self._write(h11.EndOfMessage())

    async def _write(self, event: h11.Event) -> None:
        data = self.connection.send(event)
        if not data:
            return
        with trio.move_on_after(SEND_DEADLINE):
            try:
                await self.stream.send_all(data)
            except GONE:
                raise _Gone from None
            return
        raise _Gone  # it does not read
