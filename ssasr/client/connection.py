"""A client of the public protocol: what ``ssasr transcribe``, ``mic`` and ``bench`` share."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlencode, urlsplit

import trio
from attrs import define
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
)

from ssasr.errors import SsasrError
from ssasr.net.websocket_client import connect_websocket
from ssasr.protocol.codec import decode_server
from ssasr.protocol.messages import Error, ServerMessage

DEFAULT_KEY = "self-hosted"
UNREAD = 1_024
"""Messages the library may hold for us. Pongs wait behind unread messages."""


class ClientError(SsasrError):
    """The session could not be opened, or ended with an error; one line for the user."""


def session_url(endpoint: str, parameters: Mapping[str, object]) -> str:
    """``endpoint`` with the parameters as its query. Raises ClientError if it is no ws URL."""
    parts = urlsplit(endpoint)
    if parts.scheme not in {"ws", "wss"} or not parts.hostname:
        raise ClientError(f"{endpoint!r} is not a ws:// or wss:// address")
    given = {name: value for name, value in parameters.items() if value is not None}
    return parts._replace(path=parts.path or "/v3/ws", query=urlencode(given)).geturl()


@define(eq=False)
class ClientSession:
    """One open session. One task sends, one receives."""

    websocket: WebSocketConnection

    async def send_audio(self, data: bytes) -> None:
        """Raises ClientError when the server has ended the session."""
        await self._send(data)

    async def send_json(self, text: str) -> None:
        await self._send(text)

    async def receive(self) -> ServerMessage | None:
        """The next message; None after a clean end. Raises ClientError for an Error message or a
        close code other than 1000."""
        try:
            frame = await self.websocket.get_message()
        except ConnectionClosed as closed:
            reason = closed.reason
            if reason is not None and reason.code == 1000:
                return None
            raise ClientError(closing_line(closed)) from None
        message = decode_server(frame if isinstance(frame, str) else frame.decode())
        if isinstance(message, Error):
            raise ClientError(f"the server refused: {message.error} ({message.error_code})")
        return message

    async def ping(self) -> bool:
        """Wait for the pong. False: the connection has ended."""
        try:
            await self.websocket.ping()
        except ConnectionClosed:
            return False
        return True

    async def _send(self, frame: str | bytes) -> None:
        try:
            await self.websocket.send_message(frame)
        except ConnectionClosed:
            # Why it closed is for the receiver to say.
            await trio.lowlevel.checkpoint()


def closing_line(closed: ConnectionClosed) -> str:
    if closed.reason is None:
        return "the connection broke"
    why = closed.reason.reason or "no reason given"
    return f"the server closed the session: {why} ({closed.reason.code})"


@asynccontextmanager
async def open_session(
    endpoint: str, parameters: Mapping[str, object], key: str | None = DEFAULT_KEY
) -> AsyncIterator[ClientSession]:
    """Raises ClientError."""
    url = session_url(endpoint, parameters)
    headers = [] if key is None else [(b"Authorization", key.encode())]
    async with AsyncExitStack() as stack:
        try:
            websocket = await stack.enter_async_context(
                connect_websocket(url, headers=headers, unread=UNREAD)
            )
        except ConnectionRejected as rejected:
            raise ClientError(f"{endpoint} answered HTTP {rejected.status_code}") from None
        except (HandshakeError, OSError, trio.TooSlowError) as error:
            cause = error.__cause__ or error
            raise ClientError(f"cannot connect to {endpoint}: {cause}") from error
        yield ClientSession(websocket)
