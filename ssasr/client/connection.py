"""A client of the public protocol: what ``ssasr transcribe``, ``mic`` and ``bench`` share."""

import ssl
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
from ssasr.net.websocket_client import OPEN_DEADLINE, NoAnswer, connect_websocket
from ssasr.protocol.close_codes import CLOSE_CODES, CloseCode
from ssasr.protocol.codec import decode_server
from ssasr.protocol.messages import Begin, Error, ServerMessage
from ssasr.runtime.process import first_leaf

DEFAULT_KEY = "self-hosted"
UNREAD = 1_024
"""Messages the library may hold for us. Pongs wait behind unread messages."""
UNKNOWN_SIGNER = (18, 19, 20, 21)
"""OpenSSL's error numbers for a certificate that is not signed by a trusted CA."""


BEGIN_SECONDS = 20.0
"""For the first message of a session."""
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Between attempts to begin, where the server says that it may soon be well."""


class ClientError(SsasrError):
    """The session could not be opened, or ended with an error; one line for the user."""


class TryAgain(ClientError):
    """Refused, or ended, by a code that says that the same client may succeed unchanged."""


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
            kind = failure(None if reason is None else reason.code)
            raise kind(closing_line(closed)) from None
        message = decode_server(frame if isinstance(frame, str) else frame.decode())
        if isinstance(message, Error):
            kind = failure(message.error_code)
            raise kind(f"the server refused: {message.error} ({message.error_code})")
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


def failure(code: int | None) -> type[ClientError]:
    """``code``: of an Error message or a close frame; None: there was neither."""
    if code is None or code not in set(CloseCode):
        return ClientError
    return TryAgain if CLOSE_CODES[CloseCode(code)].retry else ClientError


def closing_line(closed: ConnectionClosed) -> str:
    if closed.reason is None:
        return "the connection broke"
    why = closed.reason.reason or "no reason given"
    return f"the server closed the session: {why} ({closed.reason.code})"


def refusal_line(endpoint: str, error: Exception) -> str:
    """Why there is no connection, and what to do about it where that is known."""
    hint = ""
    if isinstance(error, ConnectionRejected):
        plain_to_tls = error.status_code == 400 and not endpoint.startswith("wss:")
        hint = "; does the port speak TLS? Then the address begins with wss://"
        return f"{endpoint} answered HTTP {error.status_code}{hint if plain_to_tls else ''}"
    match error:
        case ssl.SSLCertVerificationError(verify_code=code, verify_message=why):
            if code in UNKNOWN_SIGNER:
                hint = "; SSL_CERT_FILE=ca.pem in the environment says whose are to be trusted"
            return f"cannot connect to {endpoint}: its certificate is not accepted: {why}{hint}"
        case ssl.SSLError():
            why = "it does not speak TLS there; without TLS the address begins with ws://"
        case NoAnswer():
            if not endpoint.startswith("wss:"):
                hint = "; if it speaks TLS, the address begins with wss://"
            why = f"{error}{hint}"
        case trio.TooSlowError():
            if endpoint.startswith("wss:"):
                hint = "; if it does not speak TLS, the address begins with ws://"
            why = f"no answer within {OPEN_DEADLINE:.0f} s{hint}"
        case _:
            cause = error.__cause__ or error
            why = str(first_leaf(cause) if isinstance(cause, BaseExceptionGroup) else cause)
    return f"cannot connect to {endpoint}: {why}"


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
        except (HandshakeError, OSError, trio.TooSlowError) as error:
            raise ClientError(refusal_line(endpoint, error)) from error
        yield ClientSession(websocket)


@asynccontextmanager
async def begin_session(
    endpoint: str, parameters: Mapping[str, object], key: str | None = DEFAULT_KEY
) -> AsyncIterator[tuple[ClientSession, Begin]]:
    """A session that has begun. Where there is no room or no engine for it at the moment, it is
    tried again for a while. Raises ClientError."""
    for pause in (*RETRY_SECONDS, None):
        async with open_session(endpoint, parameters, key) as session:
            try:
                begin = await _begin(session)
            except TryAgain:
                if pause is None:
                    raise
            else:
                yield session, begin
                return
        assert pause is not None, "the last attempt has raised"
        await trio.sleep(pause)


async def _begin(session: ClientSession) -> Begin:
    with trio.move_on_after(BEGIN_SECONDS):
        message = await session.receive()
        if isinstance(message, Begin):
            return message
    raise ClientError(f"the server did not begin the session within {BEGIN_SECONDS:.0f} s")
