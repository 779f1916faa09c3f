"""Streams that survive the loss of their engine.

``ResilientEngines`` wraps any ``Engines`` and is one itself; to a session, a failover is only a
pause. What is kept for a replay, and which answers are new, is decided in ``replay``. The tasks:

stream nursery
├─ keeper: opens another engine whenever all that carry the stream are lost or draining
└─ a carrier for each engine that carries it: usually one; two while one is draining
   ├─ push: the session's messages since the start of the open segment, a window at a time
   └─ pull: the engine's answers, into one channel for all carriers

A draining engine goes on answering until the next one has caught up. Old and repeated answers are
dropped where the session takes them, one by one, so that exactly what it has taken counts as
delivered.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from random import Random

import trio
from attrs import define, evolve, field

from ssasr.errors import EngineError, EngineLost, EngineUnavailable
from ssasr.protocol.recognition import (
    SAMPLE_RATE,
    Draining,
    Final,
    Finalize,
    FromEngine,
    Open,
    Opened,
    Route,
    ToEngine,
    Update,
    answer_weight,
)
from ssasr.protocol.stream_position import StreamPosition
from ssasr.routing.engine_stream import Engines, EngineSilent, EngineStream
from ssasr.routing.replay import Replay
from ssasr.routing.retry import RetryBudget, RetryPolicy
from ssasr.runtime.handoff import HandoffChannel, Sink, Stage
from ssasr.runtime.process import plain_nursery
from ssasr.telemetry.bursts import Bursts
from ssasr.telemetry.metrics import FailoverReason, Metrics
from ssasr.telemetry.tracing import Span, child_span, current

REPLAY_WINDOW = 4 * SAMPLE_RATE
"""Samples sent to one engine and not yet acknowledged. It limits a replay to the speed at which the
engine takes it, so that the engine's other streams do not suffer."""
ANSWERS = 1 << 20
"""Bytes of answers waiting for the session. The session's own window on unacknowledged audio keeps
the number of waiting answers small, so there is always room."""


@define(eq=False)
class _Carrier:
    """One engine that carries the stream. Each has its own outbox, because engines may be at
    different positions."""

    opening: Open
    outbox: deque[ToEngine]
    stream: EngineStream | None = None
    """Once it is open."""
    window: int = REPLAY_WINDOW
    opened_at: float = 0.0
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    draining: bool = False
    wake: trio.Event = field(factory=trio.Event)
    """Set when a message fits the window but the connection is not clear."""

    def add(self, message: ToEngine) -> None:
        self.outbox.append(message)
        self.push()

    def push(self) -> None:
        """Send what fits the window and does not have to wait."""
        stream = self.stream
        while self.outbox and stream is not None and self.next_fits(stream):
            if not stream.clear:
                self.wake.set()
                return
            stream.offer(self.outbox.popleft())

    def next_fits(self, stream: EngineStream) -> bool:
        """Whether the next message may be sent now: within the window, and only one Finalize at a
        time."""
        if not self.outbox:
            return False
        if isinstance(self.outbox[0], Finalize):
            return stream.position.finalize is None
        return stream.position.unacknowledged < self.window


_Answer = tuple[_Carrier, Update | Final]


def _weigh(given: _Answer) -> int:
    """Approximate bytes of a waiting answer."""
    return answer_weight(given[1])


@define(eq=False)
class ResilientStream:
    """An ``EngineStream``; made and run by ``ResilientEngines``."""

    _owner: "ResilientEngines"
    _version: str
    _opening: Open
    route: Route = field(factory=Route)
    """To the engine that carries the stream, or that did last."""
    _budget: RetryBudget = field(init=False)
    _replay: Replay = field(init=False)
    _carriers: list[_Carrier] = field(factory=list)
    _joining: _Carrier | None = None
    _opened: Opened | None = None
    _changed: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)
    _failed: EngineLost | None = None
    _reason: FailoverReason = FailoverReason.LOST
    _attempts: int = 0
    _answers: HandoffChannel[_Answer] = field(factory=partial(HandoffChannel, ANSWERS, _weigh))

    def __attrs_post_init__(self) -> None:
        self._budget = RetryBudget(self._owner.policy, self._owner.random)
        self._replay = Replay(self._opening, self._owner.policy.max_kept)

    @property
    def opened(self) -> Opened:
        """From the first engine; later ones must be of the same kind."""
        assert self._opened is not None, "asked before the stream was opened"
        return self._opened

    @property
    def position(self) -> StreamPosition:
        return self._replay.position

    # -- what the session uses ---------------------------------------------------------------------

    @property
    def clear(self) -> bool:
        """Always, until the stream has failed: messages are kept here in any case."""
        return self._failed is None

    def offer(self, message: ToEngine) -> None:
        self._replay.add(message)
        for carrier in self._carriers:
            carrier.add(message)
        if self._joining is not None:
            self._joining.add(message)

    async def send(self, message: ToEngine) -> None:
        """Raises EngineLost once the stream is given up."""
        if self._failed is not None:
            raise self._failed
        self.offer(message)
        await trio.lowlevel.checkpoint()

    async def receive(self) -> FromEngine:
        """Raises EngineLost as ``send`` does."""
        while True:
            try:
                answer = await self._answers.receive()
            except trio.EndOfChannel:
                raise self._failed or EngineLost("the stream has ended") from None
            if (update := self._take_new(answer)) is not None:
                return update

    def deliver_to(self, sink: Sink[FromEngine]) -> None:
        self._answers.deliver_to(sink, self._take_new)

    def _take_new(self, given: _Answer) -> Update | Final | None:
        """The part of an answer that is new to the session; called as the session takes it."""
        carrier, answer = given
        update = self._replay.deliver(answer)
        newest = len(self._carriers) > 1 and self._carriers[-1] is carrier
        if newest and self._replay.is_caught_up(answer):
            self._dismiss_others(carrier)
        if update is not None:
            self._budget.progressed()
            if isinstance(update, Final):
                self._changed.unpark_all()  # the new segment may be replayable
        return update

    # -- tasks -------------------------------------------------------------------------------------

    async def start(self, nursery: trio.Nursery) -> None:
        """Open the first engine. Raises EngineBusy and EngineUnavailable at once, so that the
        client can try elsewhere. An engine that is lost while the stream is being opened is
        replaced; EngineLost is raised when the retry budget is used up."""
        lost = False
        while self._opened is None:
            try:
                await nursery.start(self._carry, self._next_carrier())
            except EngineError as error:
                lost = lost or isinstance(error, EngineLost)
                if not lost:
                    raise
                self._note_failure(error)
                if self._budget.exhausted(trio.current_time()):
                    raise EngineLost(str(error)) from error
                self._log("engine lost at the start", FailoverReason.LOST, error=str(error))
                await trio.sleep(self._budget.delay())
        nursery.start_soon(self._keep, nursery)

    async def _keep(self, nursery: trio.Nursery) -> None:
        while self._failed is None:
            if any(not carrier.draining for carrier in self._carriers):
                await self._changed.park()
            elif self._replay.replayable:
                await self._replace(nursery)
            elif self._carriers:
                # An engine is leaving, but not gone: the next segment can be moved.
                await self._changed.park()
            else:
                self._fail("its open segment is longer than what is kept of it")

    async def _replace(self, nursery: trio.Nursery) -> None:
        """Make one attempt, after a delay, to open the stream on another engine."""
        await trio.sleep(self._budget.delay())
        if not self._replay.replayable:
            return
        reason = self._reason.value
        try:
            await nursery.start(self._carry, self._next_carrier())
        except EngineError as error:
            self._note_failure(error)
            self._log("no engine yet", self._reason, error=str(error))
            self._give_up_if_exhausted(str(error))
            return
        self._owner.metrics.failovers.labels(reason).inc()
        self._log("moved", FailoverReason(reason), **_shown(self.route))

    def _note_failure(self, error: EngineError) -> None:
        """No engine was opened, or one was lost while it was."""
        now, left = trio.current_time(), bool(self._carriers)
        if isinstance(error, EngineLost) and not left:
            self._budget.lost(now, 0.0, any_left=False)
        self._budget.refused(now, any_left=left)

    def _next_carrier(self) -> _Carrier:
        """A carrier with everything to replay in its outbox. From now on it also gets what the
        session sends."""
        carrier = _Carrier(self._replay.opening(), deque(self._replay.messages()))
        self._joining = carrier
        return carrier

    async def _carry(
        self, carrier: _Carrier, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Open one engine and exchange messages with it until it is lost or dismissed. Raises
        EngineError if it cannot be opened."""
        try:
            with carrier.scope, self._span(carrier):
                async with self._owner.engines.open_stream(
                    self._version, carrier.opening
                ) as stream:
                    self._join(carrier, stream)
                    task_status.started()
                    async with plain_nursery() as nursery:
                        nursery.start_soon(self._push, carrier, stream)
                        await Stage(
                            stream, partial(self._receive_answer, carrier), self._answers
                        ).run()
        except EngineLost as lost:
            if carrier not in self._carriers:
                raise
            self._leave(carrier, lost)
        finally:
            if self._joining is carrier:
                self._joining = None
            if carrier in self._carriers:
                self._carriers.remove(carrier)
            self._changed.unpark_all()

    def _span(self, carrier: _Carrier) -> AbstractContextManager[Span]:
        self._attempts += 1
        why = {} if self._opened is None else {"moved_because": self._reason.value}
        return child_span(
            "engine stream",
            calls_out=True,
            attempt=self._attempts,
            position_seconds=carrier.opening.start / SAMPLE_RATE,
            **why,
        )

    def _join(self, carrier: _Carrier, stream: EngineStream) -> None:
        """Raises EngineUnavailable if the engine differs from the first one in a way that shows in
        the stream."""
        opened = stream.opened
        if self._opened is None:
            self._opened = opened
        elif opened.chunk != self._opened.chunk:
            raise EngineUnavailable(
                f"{opened.model} listens in chunks of {opened.chunk} samples, "
                f"{self._opened.model} of {self._opened.chunk}"
            )
        elif carrier.opening.options.speakers and opened.speakers != self._opened.speakers:
            raise EngineUnavailable(f"{opened.model} tells speakers apart, or not, as one before")
        carrier.stream, carrier.opened_at = stream, trio.current_time()
        moves = self.route.moves + (self.route.engine != "")
        self.route = evolve(stream.route, moves=moves)
        carrier.window = max(REPLAY_WINDOW, 2 * opened.chunk)
        current().note(model=opened.model, engine=opened.engine)
        self._joining = None
        self._carriers.append(carrier)
        self._budget.opened()
        if self._replay.nothing_delivered:
            self._dismiss_others(carrier)

    def _leave(self, carrier: _Carrier, lost: EngineLost) -> None:
        self._carriers.remove(carrier)
        now = trio.current_time()
        silent = isinstance(lost, EngineSilent)
        self._reason = FailoverReason.SILENT if silent else FailoverReason.LOST
        if carrier.draining and not self._carriers:
            self._reason = FailoverReason.DRAINING
        self._budget.lost(now, now - carrier.opened_at, any_left=bool(self._carriers))
        assert carrier.stream is not None, "it has joined"
        self._log("engine lost", self._reason, error=str(lost), **_shown(carrier.stream.route))
        self._give_up_if_exhausted(str(lost))

    async def _push(self, carrier: _Carrier, stream: EngineStream) -> None:
        while True:
            carrier.push()
            if carrier.next_fits(stream):
                await stream.send(carrier.outbox.popleft())
            else:
                carrier.wake = trio.Event()
                await carrier.wake.wait()

    def _receive_answer(self, carrier: _Carrier, answer: FromEngine) -> tuple[_Answer, ...]:
        """The stage from an engine's answers to the session's: an answer may also have made room in
        the window."""
        if carrier.outbox:
            carrier.push()
        if isinstance(answer, Draining):
            carrier.draining = True
            self._reason = FailoverReason.DRAINING
            self._changed.unpark_all()
            return ()
        return ((carrier, answer),)

    # -- changes -----------------------------------------------------------------------------------

    def _dismiss_others(self, newest: _Carrier) -> None:
        """Close all engines but one, which has caught up with the session."""
        for carrier in self._carriers:
            if carrier is not newest:
                carrier.scope.cancel()

    def _give_up_if_exhausted(self, why: str) -> None:
        """Give the stream up if the budget is used up and no engine carries it or is being
        opened."""
        alone = not self._carriers and self._joining is None
        if alone and self._budget.exhausted(trio.current_time()):
            self._fail(why)

    def _fail(self, why: str) -> None:
        self._log("stream given up", self._reason, error=why, **_shown(self.route))
        self._failed = EngineLost(why)
        self._answers.close()

    def _log(self, event: str, reason: FailoverReason, **fields: str) -> None:
        session = self._opening.session_id
        self._owner.bursts.warning(event, reason.value, session=session, **fields)


def _shown(route: Route) -> dict[str, str]:
    return {"engine": route.engine, "address": route.address}


@define(eq=False)
class ResilientEngines:
    """``engines`` with streams that survive the loss of their engine."""

    engines: Engines
    metrics: Metrics
    policy: RetryPolicy = field(factory=RetryPolicy)
    random: Random = field(factory=Random)
    bursts: Bursts = field(factory=Bursts)
    """Of log lines; they want to be run."""

    @asynccontextmanager
    async def open_stream(self, model_version: str, opening: Open) -> AsyncIterator[EngineStream]:
        """Raises EngineBusy, EngineUnavailable, EngineLost."""
        stream = ResilientStream(self, model_version, opening)
        async with plain_nursery() as nursery:
            await stream.start(nursery)
            try:
                yield stream
            finally:
                nursery.cancel_scope.cancel()

    def answers(self, model_version: str) -> bool:
        return self.engines.answers(model_version)

    def is_ready(self) -> bool:
        return self.engines.is_ready()
