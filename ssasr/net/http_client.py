"""One POST at a time to an address of the operator's: usage records, webhooks, an LLM.

h11 on a stream of ours, and no client library, for what those do by themselves: some follow
redirects, most take proxies from the environment, and all connect to whatever a name resolves to by
then. Nothing may leave for a place that nobody named.
"""

import functools
import ssl
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

import h11
import trio
from attrs import frozen

from ssasr.errors import SsasrError

LONGEST_ANSWER = 1 << 20
"""Bytes of a body."""
AddressFilter = Callable[[str], bool]
"""Whether an IP address may be connected to."""


class AnswerTooLong(SsasrError):
    """More than ``LONGEST_ANSWER``."""


class RequestFailed(SsasrError):
    """There was no answer; the text says why and holds nothing of the request."""


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """Reads every certificate that the machine trusts: once."""
    return ssl.create_default_context()


@frozen
class Answer:
    status: int
    body: bytes


@frozen
class Target:
    """Where a request goes. ``path``: with the query."""

    host: str
    port: int
    path: str
    tls: bool

    @classmethod
    def parse(cls, url: str) -> "Target":
        """Raises ValueError for what is no address, or one with a password in it."""
        parts = urlsplit(url)
        wanted = parts.scheme in {"http", "https"} and parts.hostname and "@" not in parts.netloc
        if not wanted or not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("not an http or https address")
        tls = parts.scheme == "https"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(str(parts.hostname), parts.port or (443 if tls else 80), path, tls)

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port == (443 if self.tls else 80)
        return host if usual else f"{host}:{self.port}"


async def post(
    target: Target,
    headers: Mapping[str, str],
    body: bytes,
    *,
    seconds: float,
    allowed: AddressFilter | None = None,
) -> Answer:
    """The answer, whatever its status, within ``seconds``. Raises RequestFailed."""
    try:
        with trio.fail_after(seconds):
            async with await _connect(target, allowed) as stream:
                own = [("Host", target.authority), ("Content-Length", str(len(body)))]
                return await exchange(stream, "POST", target.path, [*own, *headers.items()], body)
    except (OSError, trio.TooSlowError, trio.BrokenResourceError, UnicodeError) as error:
        raise RequestFailed(f"{target.host} cannot be reached: {type(error).__name__}") from error
    except h11.RemoteProtocolError as error:
        raise RequestFailed(f"{target.host} does not speak HTTP") from error
    except h11.LocalProtocolError as error:
        raise RequestFailed(f"{target.host} cannot be asked so: not HTTP") from error
    except AnswerTooLong as error:
        raise RequestFailed(f"{target.host} answers with too much") from error


async def _connect(target: Target, allowed: AddressFilter | None) -> trio.abc.Stream:
    address = target.host if allowed is None else await _allowed_address(target, allowed)
    context = _tls_context() if target.tls else None
    return await connect(address, target.port, context, target.host)


async def connect(
    address: str, port: int, context: ssl.SSLContext | None, name: str
) -> trio.abc.Stream:
    """TCP or, with a context, TLS with the server of that name. Raises OSError,
    trio.BrokenResourceError."""
    stream = await trio.open_tcp_stream(address, port)
    if context is None:
        return stream
    secure = trio.SSLStream(stream, context, server_hostname=name, https_compatible=True)
    try:
        await secure.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secure


async def _allowed_address(target: Target, allowed: AddressFilter) -> str:
    """The address that is connected to is the one that was looked at: a name may resolve to another
    the next time."""
    kind = trio.socket.SOCK_STREAM
    for _, _, _, _, address in await trio.socket.getaddrinfo(target.host, target.port, type=kind):
        if allowed(str(address[0])):
            return str(address[0])
    raise RequestFailed(f"{target.host} is at no address that is allowed")


async def exchange(
    stream: trio.abc.Stream, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes
) -> Answer:
    """One request, the only one on its connection. Raises trio.BrokenResourceError,
    h11.RemoteProtocolError, AnswerTooLong."""
    connection = h11.Connection(h11.CLIENT)
    head = h11.Request(method=method, target=path, headers=[*headers, ("Connection", "close")])
    for part in (head, h11.Data(data=body), h11.EndOfMessage()):
        await stream.send_all(connection.send(part) or b"")
    status, answer = 0, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            answer += event.data
            if len(answer) > LONGEST_ANSWER:
                raise AnswerTooLong
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, answer)
        elif not isinstance(event, h11.InformationalResponse):
            raise h11.RemoteProtocolError("no response")
