"""The public server: WebSocket handshakes, credentials, admission, drain.

process nursery
├─ HTTP and WebSocket connections arrive at the listener
└─ connections nursery, which outlives the listeners and gets a deadline when draining
   └─ one task a connection ▶ one session (``session.Session``)
"""

import ssl
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from types import MappingProxyType

import trio
from attrs import define, field, frozen

from ssasr.audio.decoding import make_decoder
from ssasr.gateway.auth.access import ALL_KEYS, Access, Grant
from ssasr.gateway.auth.licence import Licence
from ssasr.gateway.features import Features
from ssasr.gateway.jobs import Job
from ssasr.gateway.session_log import SessionLog
from ssasr.gateway.usage.records import UsageRecord
from ssasr.net.handshake import UpgradeRequest
from ssasr.net.http_server import AsgiApp, split_target
from ssasr.net.listener import HttpListener, UpgradeHandler
from ssasr.net.websocket import MESSAGE_LIMIT, ConnectionClosed, MessageSocket
from ssasr.protocol.client_link import refusal
from ssasr.protocol.close_codes import END_CAUSES, CloseCode, EndCause, SessionLimit
from ssasr.protocol.faults import ClientFault, too_many_sessions
from ssasr.protocol.liveness import PING_INTERVAL, ClientLiveness, Verdict
from ssasr.protocol.parameters import SessionParameters, parse_parameters
from ssasr.protocol.query import Query
from ssasr.protocol.speech_models import SPEECH_MODELS, Aliases
from ssasr.routing.engine_stream import Engines
from ssasr.routing.models import MODEL_VERSIONS, Offer
from ssasr.runtime.garbage import SessionCount
from ssasr.runtime.processors import cores
from ssasr.runtime.timers import Timer
from ssasr.session.session import Session, SessionTerms
from ssasr.telemetry.logs import get_logger
from ssasr.telemetry.metrics import Metrics
from ssasr.telemetry.tracing import OFF, Span, Tracer, current, working_under

WEBSOCKET_PATHS = ("/v3/ws", "/")
READ_AHEAD = 24 << 20
"""Bytes of a client's messages that may wait for a slow engine: twelve minutes of PCM at 16 kHz.
Only beyond that is the client held back, and its pings remain unread."""
READ_AHEAD_TOTAL = 256 << 20
"""Bytes that all sessions together may have waiting, besides one message each."""
UNKNOWN_MODELS = 100
"""Unknown model names that are logged, once each; later ones are not."""
REFUSAL_DEADLINE = 2.0
"""Seconds to send a refusal and its close frame."""
FINAL_WORDS_DEADLINE = 8.0
"""Seconds for sessions that are being ended to deliver the words of the audio received."""

LAST_SCRAPE_DEADLINE = 20.0
"""Seconds that a drained process waits for its metrics to be read once more, if they have ever been
read: longer than Prometheus' usual interval of 15 s."""

log = get_logger(__name__)


SESSIONS_A_CORE = 350
"""Speakers of PCM at 16 kHz that one process carries (*Gateway under load* in the standing report);
compressed audio and other rates cost two to four times as much."""


def sessions_that_fit(workers: int) -> int:
    """What so many processes carry on the processors there are."""
    return SESSIONS_A_CORE * min(workers, cores())


@frozen
class GatewayLimits:
    max_sessions: int = SESSIONS_A_CORE
    max_duration: float = 10_800.0
    """Seconds a session may last: the three hours of the specification."""
    drain_seconds: float = 30.0
    """Seconds that running sessions have to end by themselves once the server is asked to stop."""
    most_per_address: int | None = None
    """Connections of one IP address at once."""

    @property
    def most_connections(self) -> int:
        """The most open connections of any kind, authenticated or not."""
        return 2 * self.max_sessions + 256


def _ignore(_: UsageRecord) -> None:
    pass


@define(eq=False)
class Gateway:
    """``run`` serves until ``drain`` is set and the sessions have ended."""

    engines: Engines
    offer: Offer
    access: Access
    metrics: Metrics
    limits: GatewayLimits
    wall_clock: Callable[[], float] = time.time
    on_end: Callable[[UsageRecord], None] = _ignore
    """Called for every session that was served."""
    licence: Licence | None = None
    speech_models: Aliases = MappingProxyType({})
    """Names of the operator's own."""
    tracer: Tracer = OFF
    features: Features = field(factory=Features)
    session_log: SessionLog = field(factory=SessionLog)
    handlers: dict[str, UpgradeHandler] = field(factory=dict)
    """Of WebSockets of other protocols, by path."""
    draining: trio.Event = field(factory=trio.Event)
    _sessions: set[Session | Job] = field(factory=set)
    _ended: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)
    _count_ended: int = 0
    _unknown_models: set[str] = field(factory=set)
    """Names that were taken for the vendor's, and logged."""

    def __attrs_post_init__(self) -> None:
        metrics = self.metrics
        metrics.sessions_limit.set_function(self.session_limit)
        metrics.draining.set_function(self.draining.is_set)
        for version in self.offer.versions:
            metrics.ready.labels(version).set_function(partial(self.serves, version))
            answers = partial(self.engines.answers, version)
            metrics.engines_answering.labels(version).set_function(answers)
        if self.licence is not None:
            metrics.licence.set(self.licence.expires)

    def session_limit(self) -> int:
        most = self.limits.max_sessions
        return most if self.licence is None else self.licence.limit(most, self.wall_clock())

    def session_count(self) -> SessionCount:
        return SessionCount(len(self._sessions), self._count_ended)

    def serves(self, model_version: str) -> bool:
        """Whether a new session for that version would be served now."""
        open_to_all = not self.draining.is_set() and self.session_limit() > 0
        return open_to_all and self.engines.answers(model_version)

    def is_ready(self) -> bool:
        return self.engines.is_ready() and not self.draining.is_set()

    async def run(
        self,
        app: AsgiApp,
        host: str,
        port: int,
        tls: ssl.SSLContext | None = None,
        *,
        share_port: bool = False,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Started with the port that was bound. ``share_port``: with other processes. Raises
        StartRefused."""
        listener = HttpListener(
            app,
            self._serve_websocket,
            self.limits.most_per_address,
            self.limits.most_connections,
        )
        await listener.run(
            host, port, tls, self._drain,
            leave_within=REFUSAL_DEADLINE, share_port=share_port, task_status=task_status,
        )  # fmt: skip

    async def _drain(self) -> None:
        """Let sessions end by themselves for ``drain_seconds``, then end them in order."""
        await self.draining.wait()
        log.info("draining", sessions=len(self._sessions))
        with trio.move_on_after(self.limits.drain_seconds):
            await self._wait_no_sessions()
        cut = len(self._sessions)
        for session in self._sessions:
            session.wind_down(EndCause.DRAINED)
        with trio.move_on_after(FINAL_WORDS_DEADLINE):
            await self._wait_no_sessions()
        if cut:
            log.warning("sessions cut by the drain", sessions=cut)
            if self.metrics.scrapes:  # let Prometheus read what was counted just now
                with trio.move_on_after(LAST_SCRAPE_DEADLINE):
                    await self.metrics.scraped.park()

    async def _serve_websocket(self, request: UpgradeRequest, nursery: trio.Nursery) -> None:
        path, _ = split_target(request.path)
        handler = self._serve_client if path in WEBSOCKET_PATHS else self.handlers.get(path)
        if handler is None:
            await request.reject(404, b"Not found\n")
        elif self.draining.is_set():
            self.session_log.bursts.info("session refused", "draining")
            await request.reject(503, b"The server is shutting down\n")
        else:
            await handler(request, nursery)

    async def _serve_client(self, request: UpgradeRequest, nursery: trio.Nursery) -> None:
        """A client of our own protocol."""
        websocket = await request.accept(nursery, ahead=self.read_ahead)
        try:
            grant, terms = self._admit(request)
        except ClientFault as fault:
            self.note_refused(fault, request.peer)
            await refuse(websocket, fault, refusal(fault))
            return
        except Exception:
            log.exception("a session could not be agreed upon")
            self.metrics.closed(EndCause.INTERNAL)
            bug = ClientFault(CloseCode.SESSION_CANCELLED)
            await refuse(websocket, bug, refusal(bug))
            return
        with grant:
            session = Session(terms, websocket, self.engines, self.metrics)
            websocket.on_full = session.warn_held_back
            await self.serve_session(session, grant.key_id, request.peer)

    def note_refused(self, fault: ClientFault, peer: str) -> None:
        """In the metrics and the log."""
        self.metrics.closed(fault.cause, fault.limit)
        self.session_log.refused(fault, peer)

    async def serve_session(self, session: Session, key_id: str, peer: str) -> None:
        """To its end. ``key_id``, ``peer``: whose it is."""
        with working_under(self._span(session.terms)):
            await self._run_session(session, key_id, peer)

    def _admit(self, request: UpgradeRequest) -> tuple[Grant, SessionTerms]:
        """Everything that can be refused before any work is done. Raises ClientFault."""
        _, query = split_target(request.path)
        authorization = dict(request.headers).get(b"authorization", b"").decode("latin-1")
        grant = self.admit(authorization or None, Query(query).text("token"))
        try:
            parameters = parse_parameters(query, self.speech_models)
            self._warn_of_unknown_model(parameters.speech_model)
            return grant, self.terms(parameters, str(uuid.uuid4()), grant)
        except BaseException:  # whatever it was, nobody else gives the places back
            grant.release()
            raise

    def admit(self, authorization: str | None, token: str | None = None) -> Grant:
        """A place among those of the key, and one among those of all. Raises ClientFault."""
        grant = self.access.open_session(authorization, token, self.wall_clock())
        try:
            limit = self.session_limit()
            if not grant.hold(ALL_KEYS, limit):
                licensed = limit < self.limits.max_sessions
                raise too_many_sessions(SessionLimit.LICENCE if licensed else SessionLimit.GATEWAY)
        except BaseException:
            grant.release()
            raise
        return grant

    def begin_job(self, authorization: str | None) -> Job:
        """A file takes a session's place, until ``end_job``. Raises ClientFault."""
        try:
            if self.draining.is_set():
                raise ClientFault(CloseCode.GOING_AWAY, cause=EndCause.DRAINED)
            grant = self.admit(authorization)
        except ClientFault as fault:
            self.metrics.closed(fault.cause, fault.limit)
            raise
        job = Job(grant, self.wall_clock())
        self._sessions.add(job)
        self.metrics.sessions.inc()
        return job

    def span_of(self, job: Job) -> Span:
        return self.tracer.begin("file", session_id=job.id)

    def end_job(self, job: Job) -> None:
        job.grant.release()
        self._note_end(job, job.cause)
        log.info("file ended", session=job.id, cause=job.cause.value, version=job.model_version)
        self.on_end(job.record(self.wall_clock()))

    def _note_end(self, session: Session | Job, cause: EndCause) -> None:
        self._sessions.discard(session)
        self._count_ended += 1
        self._ended.unpark_all()
        self.metrics.sessions.dec()
        self.metrics.closed(cause, limit_met(cause))

    def terms(self, parameters: SessionParameters, session_id: str, grant: Grant) -> SessionTerms:
        """Raises ClientFault where no engine serves that, or a feature is not there."""
        kind = self.offer.kind_for(parameters)
        duration = min(self.limits.max_duration, grant.max_duration)
        return SessionTerms(
            id=session_id,
            parameters=parameters,
            model_version=MODEL_VERSIONS[kind],
            decoder=make_decoder(parameters),
            max_duration=duration,
            expires_at=int(self.wall_clock() + duration),
            companions=self.features.companions(parameters, session_id, kind),
        )

    def _warn_of_unknown_model(self, name: str) -> None:
        if name in SPEECH_MODELS or name in self._unknown_models:
            return
        if len(self._unknown_models) < UNKNOWN_MODELS:
            self._unknown_models.add(name)
            log.warning("an unknown speech model is served as one of family P", speech_model=name)

    def _span(self, terms: SessionTerms) -> Span:
        parameters = terms.parameters
        return self.tracer.begin(
            "session",
            session_id=terms.id,
            model_version=terms.model_version,
            speech_model=parameters.speech_model,
            family=parameters.family.value,
        )

    async def _run_session(self, session: Session, key_id: str, peer: str) -> None:
        terms = session.terms
        self.session_log.begun(terms, key_id, peer)
        started = self.wall_clock()
        self._sessions.add(session)
        self.metrics.sessions.inc()
        cause = EndCause.INTERNAL
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_alive, session)
                cause = await session.run()
                nursery.cancel_scope.cancel()
        except Exception:
            log.exception("session failed", session=terms.id)
            fault = ClientFault(END_CAUSES[cause], cause=cause)
            await refuse(session.websocket, fault, session.link.refusal(fault))
        finally:
            self._note_end(session, cause)
            current().note(cause=cause.value, close_code=int(END_CAUSES[cause]))
            for companion in terms.companions:
                companion.ended()
            totals, ended = session.totals, self.wall_clock()
            self.session_log.ended(terms, key_id, peer, cause, ended - started, totals)
            self.on_end(
                UsageRecord(
                    session_id=terms.id,
                    started=started,
                    ended=ended,
                    audio_seconds=totals.audio_seconds,
                    model=terms.model_version,
                    close_code=int(END_CAUSES[cause]),
                    key_id=key_id,
                )
            )

    def read_ahead(self) -> int:
        """Bytes of messages that a session may have waiting before reading stops."""
        share = READ_AHEAD_TOTAL // max(len(self._sessions), 1)
        return min(max(share, MESSAGE_LIMIT), READ_AHEAD)

    async def _wait_no_sessions(self) -> None:
        while self._sessions:
            await self._ended.park()


def limit_met(cause: EndCause) -> SessionLimit | None:
    """The limit behind a cause: a session that was admitted can only meet the engines'."""
    return SessionLimit.ENGINES if cause is EndCause.TOO_MANY_SESSIONS else None


async def keep_alive(session: Session) -> None:
    """Send pings to a client that has sent nothing for a while, and end the session of one that
    does not answer."""
    websocket = session.websocket
    liveness = ClientLiveness(trio.current_time())

    def check(second: float) -> float | None:
        verdict = liveness.check(
            second, session.last_message, websocket.received, held_back=session.held_back
        )
        if verdict is Verdict.SILENT:
            session.give_up()
            return None
        if verdict is Verdict.ASK:
            websocket.ping()
        return liveness.next_check_in(second)

    await Timer(check).run_until_over(PING_INTERVAL)


async def refuse(websocket: MessageSocket, fault: ClientFault, frames: Iterable[str]) -> None:
    """Send the reason both as a message and in a close frame, since clients read either."""
    with trio.move_on_after(REFUSAL_DEADLINE, shield=True), suppress(ConnectionClosed):
        for frame in frames:
            await websocket.send(frame)
        await websocket.aclose(int(fault.code), fault.reason)
