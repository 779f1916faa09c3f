"""Engines in other processes, reached through one address, usually that of a load balancer.

Each stream is one WebSocket, opened with the model version in ``X-Model-Version``; the load
balancer chooses the engine. A gateway starts without engines. Every few seconds it asks whether
there are any, by ``GET /ready`` with the same header at the same address: that takes the path that
a stream would take, is answered by an engine and occupies no place there.
"""

import math
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import h11
import trio
from attrs import define, field, frozen
from trio_websocket import ConnectionRejected, HandshakeError

from ssasr.errors import EngineBusy, EngineLost, EngineUnavailable, StartRefused
from ssasr.net.engine_connection import Link, LinkDown, PeerSilent
from ssasr.net.handshake import BrokenHandshake, Headers, open_websocket
from ssasr.net.http_client import AnswerTooLong, connect, exchange
from ssasr.protocol.engine_link import (
    ENGINE_HEADER,
    PATH,
    REFUSAL_HEADER,
    SESSION_HEADER,
    SUBPROTOCOL,
    VERSION_HEADER,
    EngineLink,
    Refusal,
    Role,
)
from ssasr.protocol.engine_wire import Message
from ssasr.protocol.faults import PeerFault
from ssasr.protocol.recognition import (
    Draining,
    Final,
    FromEngine,
    Open,
    Opened,
    Route,
    Update,
)
from ssasr.protocol.stream_position import StreamPosition
from ssasr.routing.attempts import AGAIN_SECONDS, first_answers
from ssasr.routing.engine_stream import EngineSilent, EngineStream
from ssasr.runtime.process import plain_nursery
from ssasr.telemetry.logs import get_logger
from ssasr.telemetry.tracing import current

CONNECT_SECONDS = 2.0
"""For the name lookup, TCP, TLS and the handshake, all attempts (``attempts``) together."""
OPEN_SECONDS = 5.0
"""From Open to Opened; an engine under load answers between two steps."""
PROBE_SECONDS = 2.0
"""Between two probes of a model's engines, and for the answer to one."""

NO_ANSWER = (
    OSError, trio.BrokenResourceError, h11.RemoteProtocolError, AnswerTooLong, trio.TooSlowError
)  # fmt: skip
"""No connection, no HTTP, or no answer in time."""
ATTEMPT_HEADER = "X-Ssasr-Attempt"
UNANSWERED_SECONDS = 30.0
"""For how long after an engine was silent the balancer is asked for any instead of the least
loaded: until a supervisor is likely to have noticed an engine that hangs. A guess."""

log = get_logger(__name__)


@frozen
class Address:
    """Where the engines are: ``ws://HOST:PORT`` or ``wss://…``."""

    host: str
    port: int
    context: ssl.SSLContext | None = field(default=None, eq=False)
    """For TLS; shared by all connections, because making one takes 20 ms."""

    @classmethod
    def parse(cls, url: str, ca_file: Path | None = None) -> "Address":
        """``ca_file``: PEM file of the CA that signs the engines' certificates; None: the machine's
        trusted CAs. Raises StartRefused."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in {"ws", "wss"} or not parts.hostname or port == 0:
            raise StartRefused(f"{url!r} is not an address of engines (ws://HOST:PORT)")
        if parts.path.strip("/") or parts.query or parts.username:
            raise StartRefused(f"{url!r}: only ws://HOST:PORT, the path is the protocol's own")
        tls = parts.scheme == "wss"
        if ca_file is not None and not tls:
            raise StartRefused("a CA for the engines is of use with wss:// only")
        try:
            context = ssl.create_default_context(cafile=ca_file) if tls else None
        except OSError as error:
            raise StartRefused(f"cannot use the CA file {ca_file}: {error}") from error
        return cls(parts.hostname, port or (443 if tls else 80), context)

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    async def connect(self) -> trio.abc.Stream:
        """Raises OSError, trio.BrokenResourceError."""
        return await connect(self.host, self.port, self.context, self.host)


@define(eq=False)
class LinkedStream(Link):
    """A link as an ``EngineStream``."""

    opened: Opened = field(init=False)
    position: StreamPosition = field(init=False)
    """The machine's own."""

    async def open(self, opening: Open) -> None:
        """Send Open and wait for Opened. Raises EngineLost."""
        try:
            with trio.fail_after(OPEN_SECONDS):
                await self.send(opening)
                opened = await Link.receive(self)
        except trio.TooSlowError:
            raise EngineSilent("the engine did not open the stream") from None
        except (LinkDown, PeerFault) as fault:
            raise _lost(fault) from None
        assert isinstance(opened, Opened), "the machine lets nothing else come first"
        self.opened, self.expected_from = opened, opened.chunk
        self.position = self.machine.position

    @property
    def route(self) -> Route:
        return Route(self.opened.engine, self.address)

    async def send(self, message: Message) -> None:
        """Raises EngineLost."""
        try:
            await Link.send(self, message)
        except LinkDown as down:
            raise _lost(down) from None

    async def receive(self) -> FromEngine:
        """Raises EngineLost."""
        try:
            message = await Link.receive(self)
        except (LinkDown, PeerFault) as fault:
            raise _lost(fault) from None
        assert isinstance(message, Update | Final | Draining), "the machine lets nothing else in"
        return message


def _lost(fault: LinkDown | PeerFault) -> EngineLost:
    if isinstance(fault, PeerSilent):
        return EngineSilent(str(fault))
    return EngineLost(str(fault))


@define(eq=False)
class EngineClient:
    """Opens streams, and probes the engines while ``run`` is running.

    ``versions``: the model versions to probe. ``required``: whether this gateway is ready only if
    all of them answer; otherwise one is enough."""

    address: Address
    versions: Sequence[str]
    required: bool
    secret: str | None = field(default=None, repr=False)
    """Sent to the engines, as ``--engine-secret-file`` says."""
    _answering: dict[str, bool] = field(factory=dict)
    _unanswered: dict[str, float] = field(factory=dict)
    """When an engine of a version last left a question unanswered."""

    def answers(self, model_version: str) -> bool:
        """Whether an engine of that version answered the last probe."""
        return self._answering.get(model_version, False)

    def is_ready(self) -> bool:
        """Whether the engines that this gateway needs answered their last probes."""
        answers = [self.answers(version) for version in self.versions]
        return all(answers) if self.required else any(answers)

    async def run(self) -> None:
        """Probe all versions until cancelled."""
        async with trio.open_nursery() as nursery:
            for version in self.versions:
                nursery.start_soon(self._probe, version)

    @asynccontextmanager
    async def open_stream(self, model_version: str, opening: Open) -> AsyncIterator[EngineStream]:
        """Raises EngineBusy, EngineUnavailable, or EngineLost if the engine broke off while the
        stream was being opened."""
        opened = False
        streams: list[trio.abc.Stream] = []
        try:
            async with plain_nursery() as nursery:
                stream = await self._connect(nursery, model_version, opening.session_id, streams)
                with self._note_silence(model_version):
                    await stream.open(opening)
                opened = True
                nursery.start_soon(stream.watch)
                try:
                    yield stream
                finally:
                    await stream.close()
                    nursery.cancel_scope.cancel()
        except Exception as error:
            if not opened:
                _raise_refusal(error)
            raise
        finally:
            with trio.CancelScope(shield=True):  # all of them, and nothing is waited for
                for each in streams:
                    await trio.aclose_forcefully(each)

    async def _connect(
        self,
        nursery: trio.Nursery,
        model_version: str,
        session_id: str,
        streams: list[trio.abc.Stream],
    ) -> LinkedStream:
        """A link to the engine that was the first to answer. Its TCP or TLS stream is appended to
        ``streams``, for the caller to close. Raises what ``_raise_refusal`` translates."""
        ask = partial(self._link, nursery, model_version, session_id, streams)
        first, *others = await first_answers(ask, CONNECT_SECONDS)
        for other in others:
            other.websocket.abort()
        return first

    async def _link(
        self,
        nursery: trio.Nursery,
        model_version: str,
        session_id: str,
        streams: list[trio.abc.Stream],
        attempt: int,
    ) -> LinkedStream:
        """One attempt of ``_connect``."""
        headers = [
            *self._headers(model_version, attempt),
            (SESSION_HEADER, session_id),
            *current().headers(),
        ]
        with self._note_silence(model_version):
            stream = await self.address.connect()
            try:
                websocket, answer = await open_websocket(
                    stream,
                    nursery,
                    self.address.netloc,
                    PATH,
                    subprotocol=SUBPROTOCOL,
                    headers=[(name.encode(), value.encode()) for name, value in headers],
                )
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        streams.append(stream)
        return LinkedStream(websocket, EngineLink(Role.GATEWAY), self._answered_by(answer))

    def _answered_by(self, answer: Headers) -> str:
        """A balancer names every engine that it asked, the one that took the stream last."""
        asked = dict(answer).get(ENGINE_HEADER.lower().encode(), b"").decode("latin-1")
        return asked.rpartition(",")[2].strip() or self.address.netloc

    def _headers(self, version: str, attempt: int) -> list[tuple[str, str]]:
        """Headers of a request. An engine that hangs has few streams, so a balancer that picks the
        least loaded one would choose it again and again; with ``ATTEMPT_HEADER``, ours goes round
        all of them."""
        since = trio.current_time() - self._unanswered.get(version, -math.inf)
        attempt += since < UNANSWERED_SECONDS
        again = [(ATTEMPT_HEADER, str(attempt))] if attempt > 1 else []
        secret = [] if self.secret is None else [("Authorization", f"Bearer {self.secret}")]
        return [(VERSION_HEADER, version), *again, *secret]

    @contextmanager
    def _note_silence(self, version: str) -> Iterator[None]:
        """Note it if the block is given up after more than a moment without an answer."""
        began = trio.current_time()
        try:
            yield
        except (trio.Cancelled, EngineSilent):
            if trio.current_time() - began >= AGAIN_SECONDS:
                self._unanswered[version] = trio.current_time()
            raise

    async def _probe(self, version: str) -> None:
        while True:
            ready = False
            with suppress(*NO_ANSWER):
                ready = 200 in await first_answers(partial(self._ask, version), PROBE_SECONDS)
            if ready != self._answering.get(version):
                log.info("engines", version=version, ready=ready)
            self._answering[version] = ready
            await trio.sleep(PROBE_SECONDS)

    async def _ask(self, version: str, attempt: int) -> int:
        """Ask ``GET /ready``; the status of the answer."""
        headers = [("Host", self.address.netloc), *self._headers(version, attempt)]
        with self._note_silence(version):
            async with await self.address.connect() as stream:
                return (await exchange(stream, "GET", "/ready", headers, b"")).status


def _raise_refusal(error: Exception) -> NoReturn:
    """Translate the reason why no stream was opened into an EngineError."""
    match error:
        case ConnectionRejected():
            _raise_rejection(error)
        case trio.TooSlowError():
            raise EngineUnavailable("the engines did not answer in time") from None
        case BrokenHandshake():
            raise EngineUnavailable(f"what answers is no engine: {error}") from None
        case OSError() | HandshakeError() | trio.BrokenResourceError():
            raise EngineUnavailable(f"the engines cannot be reached: {error}") from None
    raise error


def _raise_rejection(rejected: ConnectionRejected) -> NoReturn:
    """The handshake was answered with an ordinary HTTP response."""
    headers = {name.lower(): value.decode("latin-1") for name, value in rejected.headers}
    refusal = headers.get(REFUSAL_HEADER.lower().encode(), "")
    text = (rejected.body or b"").decode("utf-8", "replace").strip()
    if rejected.status_code == 503 and refusal == Refusal.FULL.value:
        raise EngineBusy(text or "every engine is full") from None
    shown = f": {text.splitlines()[0][:200]}" if text else ""
    raise EngineUnavailable(f"refused with HTTP {rejected.status_code}{shown}") from None
