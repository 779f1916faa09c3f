"""An engine as a server for gateways: one port for streams, health and metrics.

process nursery
├─ EngineHost.run: the model's life; its exception is the process's
├─ connections arrive at the listener (``listener``)
└─ connections nursery, which outlives the listeners and gets a deadline when draining
   └─ one link: a task that reads, one that writes, one that checks whether the peer is alive

Admission happens at the handshake: a place is reserved before the WebSocket is accepted. An engine
without room answers with HTTP 503 within a millisecond, and the load balancer tries another one.
"""

import hmac
import ssl
from typing import TypeVar

import trio
from attrs import define, field, frozen

from ssasr.engine.host import EngineHost, LocalStream, Reservation
from ssasr.engine.streams import LinkFault
from ssasr.errors import EngineBusy, EngineLost
from ssasr.net.engine_connection import Link, LinkDown
from ssasr.net.handshake import UpgradeRequest
from ssasr.net.http_server import AsgiApp, split_target
from ssasr.net.listener import HttpListener
from ssasr.protocol.engine_link import (
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
from ssasr.protocol.recognition import SAMPLE_RATE, Audio, Configure, Finalize, Open
from ssasr.runtime.handoff import Stage
from ssasr.runtime.process import first_leaf
from ssasr.telemetry.bursts import Bursts
from ssasr.telemetry.logs import get_logger
from ssasr.telemetry.metrics import Metrics
from ssasr.telemetry.tracing import HEADER, OFF, Tracer, current, working_under

MOST_CONNECTIONS = 4_096
"""Of any kind; far above the streams of any engine."""
OPEN_SECONDS = 5.0
"""From the accepted handshake to Open. A place is held meanwhile, so a peer that connects and sends
nothing must not keep it."""
LEAVE_SECONDS = 1.0
"""For the closing handshakes of the links that are broken at the drain's deadline."""

T = TypeVar("T")

log = get_logger(__name__)


@define(eq=False)
class EngineServer:
    """``run`` serves until ``draining`` is set and the streams have left. ``host`` is set once the
    weights are there. ``version`` is the model version that gateways ask for; None takes any."""

    metrics: Metrics
    version: str | None
    drain_seconds: float
    host: EngineHost | None = None
    secret: str | None = field(default=None, repr=False)
    """Gateways must send it; None: no secret is needed."""
    tracer: Tracer = OFF
    bursts: Bursts = field(factory=Bursts)
    """Of log lines; they want to be run."""
    draining: trio.Event = field(factory=trio.Event)
    _links: set[Link] = field(factory=set)
    _left: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    def is_ready(self) -> bool:
        return self.refusal() is None

    def refusal(self) -> Refusal | None:
        """Why no stream can be taken, other than for lack of room; None if it can."""
        if self.draining.is_set():
            return Refusal.DRAINING
        if self.host is None or not self.host.ready.is_set():
            return Refusal.STARTING
        return None

    async def run(
        self,
        app: AsgiApp,
        host: str,
        port: int,
        tls: ssl.SSLContext | None = None,
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Started with the port that was bound. Raises StartRefused."""
        listener = HttpListener(app, self._serve_websocket, most_open=MOST_CONNECTIONS)
        await listener.run(
            host, port, tls, self._drain, leave_within=LEAVE_SECONDS, task_status=task_status
        )

    async def _drain(self) -> None:
        """Refuse new streams, with the reason, and wait for the open ones to move elsewhere."""
        await self.draining.wait()
        log.info("draining", streams=len(self._links))
        if self.host is not None:
            self.host.drain()
        with trio.move_on_after(self.drain_seconds):
            while self._links:
                await self._left.park()
        for link in self._links:
            log.warning("a stream stayed to the end of the drain")
            link.websocket.abort()

    async def _serve_websocket(self, request: UpgradeRequest, nursery: trio.Nursery) -> None:
        headers = {name: value.decode("latin-1") for name, value in request.headers}
        asked = headers.get(VERSION_HEADER.lower().encode(), self.version)
        offered = request.subprotocols
        if split_target(request.path)[0] != PATH:
            return await request.reject(404, b"Streams are at " + PATH.encode() + b"\n")
        if SUBPROTOCOL not in offered:
            text = f"This engine speaks {SUBPROTOCOL}, the gateway {', '.join(offered) or 'none'}\n"
            return await request.reject(400, text.encode())
        if self.version is not None and asked != self.version:
            text = f"This engine serves {self.version}, not {asked}\n"
            return await request.reject(404, text.encode())
        if not self._knows_secret(headers.get(b"authorization", "")):
            return await request.reject(401, b"This engine asks for a secret\n")
        refusal = self.refusal()
        if refusal is not None or self.host is None:
            return await self._refuse(request, refusal or Refusal.STARTING)
        try:
            with self.host.reserve() as reservation:
                websocket = await request.accept(nursery, subprotocol=SUBPROTOCOL)
                link = Link(websocket, EngineLink(Role.ENGINE))
                span = self.tracer.begin("stream", headers.get(HEADER.encode(), ""))
                with working_under(span):
                    await self._serve_link(self.host, link, reservation)
        except EngineBusy:
            await self._refuse(request, Refusal.FULL)

    def _knows_secret(self, authorization: str) -> bool:
        if self.secret is None:
            return True
        return hmac.compare_digest(authorization.encode(), f"Bearer {self.secret}".encode())

    async def _refuse(self, request: UpgradeRequest, refusal: Refusal) -> None:
        self.metrics.refusals.labels(refusal.value).inc()
        session = dict(request.headers).get(SESSION_HEADER.lower().encode(), b"")
        self.bursts.info("stream refused", refusal.value, session=session.decode("latin-1"))
        header = (REFUSAL_HEADER.encode(), refusal.value.encode())
        body = f"This engine takes no stream now: {refusal.value}\n".encode()
        await request.reject(503, body, [header])

    async def _serve_link(self, host: EngineHost, link: Link, reservation: Reservation) -> None:
        self._links.add(link)
        try:
            await serve_link(host, link, reservation)
        finally:
            self._links.discard(link)
            self._left.unpark_all()


async def serve_link(host: EngineHost, link: Link, reservation: Reservation) -> None:
    """Serve one stream from its Open to its end. An exception that this raises is a bug."""
    code, reason, how = 1000, "", ""
    session, audio_seconds, began = "", 0.0, trio.current_time()
    try:
        with trio.fail_after(OPEN_SECONDS):
            opening = await link.receive()
        assert isinstance(opening, Open), "EngineLink lets nothing else come first"
        session = opening.session_id
        async with host.open_reserved(opening, reservation) as stream:
            opened = stream.opened
            current().note(session_id=session, model=opened.model, engine=opened.engine)
            log.debug("stream begun", session=session, at_seconds=opening.start / SAMPLE_RATE)
            try:
                await link.send(opened)
                await _exchange(stream, link)
            finally:
                audio_seconds = (stream.stream.received - opening.start) / SAMPLE_RATE
                current().note(audio_seconds=audio_seconds)
    except* LinkDown as group:
        how = str(group.exceptions[0])
    except* (PeerFault, LinkFault) as group:
        code, reason = 1002, str(first_leaf(group))
        log.warning("the gateway broke the link's rules", session=session, reason=reason)
    except* EngineLost:
        code, reason = 1013, "results were not read"
    except* trio.TooSlowError:
        code, reason = 1002, "Open did not come"
    current().note(close_code=code)
    log.info(
        "stream ended", session=session, engine=host.name, code=code, reason=reason or how,
        seconds=round(trio.current_time() - began, 2), audio_seconds=round(audio_seconds, 2),
    )  # fmt: skip
    await link.close(code, reason)


async def _exchange(stream: LocalStream, link: Link) -> None:
    """Run both directions until one ends. Raises what ended it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Stage(stream.answers, _as_it_is, link).run)
        nursery.start_soon(link.watch)
        await Stage(link, _as_it_is, _Feed(stream)).run()


def _as_it_is(message: T) -> tuple[T]:
    return (message,)


@frozen(eq=False)
class _Feed:
    """The outlet for a gateway's messages: the engine host."""

    stream: LocalStream
    clear: bool = True

    def offer(self, message: Message) -> None:
        assert isinstance(message, Audio | Configure | Finalize), "checked by EngineLink"
        self.stream.host.feed(self.stream.stream, message)

    async def send(self, message: Message) -> None:
        self.offer(message)
        await trio.lowlevel.checkpoint()
