"""Streams that survive the loss of their engine.

``ResilientEngines`` wraps any ``Engines`` and is one itself; a session cannot tell the difference
but by the pause. What is kept and what is dropped is decided in ``replay``; here are the tasks:

stream nursery
├─ keeper: whenever no engine that means to stay carries the stream, opens another
└─ a carrier for each engine that carries it: usually one, two while one is leaving
   ├─ push: what the session says, from the start of its open segment, a window at a time
   └─ pull: what the engine answers, into one channel, whoever it comes from

An engine that drains goes on answering until the next one has caught up. Answers are sorted out
where the session takes them, one by one, so that what counts as delivered is exactly what it has
taken.
"""

import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from random import Random

import trio
from attrs import define, field, frozen

from ssasr.errors import EngineError, EngineLost, EngineUnavailable
from ssasr.protocol.recognition import (
    SAMPLE_RATE,
    Audio,
    Draining,
    Final,
    Finalize,
    FromEngine,
    Open,
    Opened,
    ToEngine,
    Update,
)
from ssasr.routing.engine_stream import AnswerSink, Engines, EngineSilent, EngineStream
from ssasr.routing.replay import MAX_KEPT, Replay, ReplayStatistics
from ssasr.runtime.handoff import HandoffChannel
from ssasr.runtime.process import plain_nursery
from ssasr.telemetry.logs import get_logger
from ssasr.telemetry.metrics import Metrics
from ssasr.telemetry.tracing import Span, child_span, current

REPLAY_WINDOW = 4 * SAMPLE_RATE
"""Samples under way to one engine. A replay is as fast as the engine takes it, and no faster: the
streams that it has already must not notice."""
ANSWERS = 1_024
"""Answers waiting for the session. It lets no more audio follow than it has taken answers for, so
that there is always room, and the connection is always read, whose pings want answers."""

log = get_logger(__name__)


@frozen
class RetryPolicy:
    """How long to look for an engine before the session ends because there is none."""

    seconds: float = 15.0
    """Without any engine."""
    tries: int = 5
    """Engines in a row that took the stream and were lost at once (``settled``) with nothing new
    to say: it may be this very audio that kills them, and it must not kill them all."""
    settled: float = 10.0
    """Seconds after which an engine that is lost does not count as a try."""
    first_delay: float = 0.05
    longest_delay: float = 1.0
    max_kept: int = MAX_KEPT
    """Samples; see ``replay``."""


@define
class RetryBudget:
    """Backoff and its end; pure but for ``random``."""

    policy: RetryPolicy
    random: Random
    _without_since: float = math.inf
    _failures: int = 0
    _tries: int = 0

    def lost(self, now: float, carried_for: float, *, any_left: bool) -> None:
        """An engine was lost; ``any_left``: another still carries the stream."""
        if carried_for < self.policy.settled:
            self._tries += 1
        else:
            self._tries = 1
        if not any_left:
            self._without_since = min(self._without_since, now)

    def progressed(self) -> None:
        """An engine has said something new: all is well."""
        self._tries = 0

    def opened(self) -> None:
        self._without_since = math.inf
        self._failures = 0

    def refused(self, now: float, *, any_left: bool) -> None:
        """No engine could be opened."""
        self._failures += 1
        if not any_left:
            self._without_since = min(self._without_since, now)

    def exhausted(self, now: float) -> bool:
        return self._tries > self.policy.tries or now - self._without_since > self.policy.seconds

    def delay(self) -> float:
        """Seconds to wait before the next attempt, spread so that the streams of a lost engine do
        not all come at once. Losing it often counts like not finding one."""
        failures = self._failures + max(self._tries - 1, 0)
        if failures == 0:
            return self.random.uniform(0.0, self.policy.first_delay)
        backoff = self.policy.first_delay * 2.0 ** min(failures - 1, 16)
        return min(backoff, self.policy.longest_delay) * self.random.uniform(0.75, 1.25)


@define(eq=False)
class _Carrier:
    """One engine that carries the stream. Its outbox is its own, so that engines may be at
    different places."""

    opening: Open
    outbox: deque[ToEngine]
    stream: EngineStream | None = None
    resting: bool = False
    """Its pusher waits, and nothing is in the outbox."""
    window: int = REPLAY_WINDOW
    opened_at: float = 0.0
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    draining: bool = False
    wake: trio.Event = field(factory=trio.Event)
    """There is something to push, or room for it."""
    sent: int = 0
    acknowledged: int = 0
    finalizing: bool = False

    def add(self, message: ToEngine) -> None:
        """At once, where nothing waits and nothing has to."""
        stream = self.stream
        if self.resting and stream is not None and self._fits(message) and stream.offer(message):
            self.pushed(message)
            return
        self.resting = False
        self.outbox.append(message)
        self.wake.set()

    def may_push(self) -> bool:
        return bool(self.outbox) and self._fits(self.outbox[0])

    def _fits(self, message: ToEngine) -> bool:
        """An engine is asked for one final at a time, and what follows waits its turn."""
        if isinstance(message, Finalize):
            return not self.finalizing
        return self.sent - self.acknowledged < self.window

    def pushed(self, message: ToEngine) -> None:
        if isinstance(message, Audio):
            self.sent = message.start + len(message.pcm) // 2
        self.finalizing = self.finalizing or isinstance(message, Finalize)

    def acknowledge(self, answer: FromEngine) -> None:
        match answer:
            case Update(_, position):
                if not self.finalizing:  # else it is about audio that will be listened to again
                    self.acknowledged = max(self.acknowledged, position)
            case Final(_, at):
                self.acknowledged = at
                self.finalizing = False
            case Draining():
                self.draining = True
        if self.outbox:  # else there is nothing that waits for room
            self.wake.set()


_Answer = tuple[_Carrier, Update | Final]


@frozen(eq=False)
class _Pull:
    """Takes a carrier's answers for its stream."""

    stream: "ResilientStream"
    carrier: _Carrier

    def ready(self) -> bool:
        return self.stream.ready()

    def take(self, answer: FromEngine) -> None:
        self.stream.take(self.carrier, answer)


class ResilientStream:
    """An ``EngineStream``; made and run by ``ResilientEngines``."""

    def __init__(
        self, engines: Engines, version: str, opening: Open, budget: RetryBudget, metrics: Metrics
    ) -> None:
        self._engines = engines
        self._version = version
        self._session_id = opening.session_id
        self._budget = budget
        self._metrics = metrics
        self._replay = Replay(opening, budget.policy.max_kept)
        self._carriers: list[_Carrier] = []
        self._joining: _Carrier | None = None
        self._opened: Opened | None = None
        self._changed = trio.Event()
        self._failed: EngineLost | None = None
        self._reason = "lost"
        self._attempts = 0
        self._answers = HandoffChannel[_Answer](ANSWERS)
        self._answers.set_fast_path(self._take_now)
        self._sink: AnswerSink | None = None

    @property
    def opened(self) -> Opened:
        """What the first engine said of itself; those after it are of the same kind."""
        assert self._opened is not None, "asked before the stream was opened"
        return self._opened

    def statistics(self) -> ReplayStatistics:
        return self._replay.statistics()

    # -- what the session uses ---------------------------------------------------------------------

    async def send(self, message: ToEngine) -> None:
        """Raises EngineLost once no engine could be found for too long."""
        if self._failed is not None:
            raise self._failed
        self.offer(message)
        await trio.lowlevel.checkpoint()

    def offer(self, message: ToEngine) -> bool:
        """It is kept in any case, so it never has to wait."""
        if self._failed is not None:
            return False
        self._replay.add(message)
        for carrier in self._carriers:
            carrier.add(message)
        if self._joining is not None:
            self._joining.outbox.append(message)
        return True

    def deliver_to(self, sink: AnswerSink) -> None:
        self._sink = sink

    async def receive(self) -> FromEngine:
        """Raises EngineLost as ``send`` does."""
        while True:
            try:
                carrier, answer = await self._answers.get()
            except trio.EndOfChannel:
                raise self._failed or EngineLost("the stream has ended") from None
            if (update := self._take_new(carrier, answer)) is not None:
                return update

    def _take_new(self, carrier: _Carrier, answer: Update | Final) -> Update | Final | None:
        """The part of it that is new to the session."""
        update = self._replay.deliver(answer)
        if self._carriers[-1:] == [carrier] and self._replay.is_caught_up(answer):
            self._dismiss_others(carrier)
        if update is not None:
            self._budget.progressed()
            if isinstance(update, Final):
                self._notify()  # a new segment may be replayable where the last one was not
        return update

    # -- tasks -------------------------------------------------------------------------------------

    async def start(self, nursery: trio.Nursery) -> None:
        """Open the first engine. Raises EngineBusy, EngineUnavailable at once: a client that comes
        in vain should hear so and try elsewhere. An engine that dies with the stream half open is a
        loss like any other, and EngineLost comes only after the budget."""
        lost: EngineError | None = None
        while self._opened is None:
            try:
                await nursery.start(self._carry, self._next_carrier())
            except EngineError as error:
                now = trio.current_time()
                if isinstance(error, EngineLost):
                    lost = error
                    self._budget.lost(now, 0.0, any_left=False)
                elif lost is None:
                    raise
                self._budget.refused(now, any_left=False)
                if self._budget.exhausted(now):
                    raise EngineLost(str(error)) from error
                log.info("engine lost at the start", session=self._session_id, error=str(error))
                await trio.sleep(self._budget.delay())
        nursery.start_soon(self._keep, nursery)

    async def _keep(self, nursery: trio.Nursery) -> None:
        while self._failed is None:
            if any(not carrier.draining for carrier in self._carriers):
                await self._changed.wait()
            elif self._replay.replayable:
                await self._replace(nursery)
            elif self._carriers:
                # An engine is leaving, but not gone: the next segment can be moved.
                await self._changed.wait()
            else:
                self._fail("its open segment is longer than what is kept of it")

    async def _replace(self, nursery: trio.Nursery) -> None:
        """One attempt, after a pause, to have another engine carry the stream."""
        await trio.sleep(self._budget.delay())
        if not self._replay.replayable:
            return
        reason = self._reason
        try:
            await nursery.start(self._carry, self._next_carrier())
        except EngineError as error:
            now, left = trio.current_time(), bool(self._carriers)
            if isinstance(error, EngineLost):
                self._budget.lost(now, 0.0, any_left=left)
            self._budget.refused(now, any_left=left)
            log.info("no engine yet", session=self._session_id, error=str(error))
            if self._budget.exhausted(now):
                self._fail(str(error))
            return
        self._metrics.failovers.labels(reason).inc()
        log.info("moved", session=self._session_id, reason=reason)

    def _next_carrier(self) -> _Carrier:
        """Prepared to replay everything; from now on it gets what the session sends."""
        carrier = _Carrier(self._replay.opening(), deque(self._replay.messages()))
        carrier.sent = carrier.acknowledged = carrier.opening.start
        self._joining = carrier
        return carrier

    async def _carry(
        self, carrier: _Carrier, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Open one engine and be its carrier until it is lost or dismissed. Raises EngineError if
        it cannot be opened."""
        try:
            with carrier.scope, self._span(carrier):
                async with self._engines.open_stream(self._version, carrier.opening) as stream:
                    self._join(carrier, stream)
                    task_status.started()
                    async with plain_nursery() as nursery:
                        nursery.start_soon(self._push, carrier, stream)
                        await self._pull(carrier, stream)
        except EngineLost as lost:
            if carrier not in self._carriers:
                raise
            self._leave(carrier, lost)
        finally:
            if self._joining is carrier:
                self._joining = None
            if carrier in self._carriers:
                self._carriers.remove(carrier)
            self._notify()

    def _span(self, carrier: _Carrier) -> AbstractContextManager[Span]:
        self._attempts += 1
        why = {} if self._opened is None else {"moved_because": self._reason}
        return child_span(
            "engine stream",
            calls_out=True,
            attempt=self._attempts,
            position_seconds=carrier.opening.start / SAMPLE_RATE,
            **why,
        )

    def _join(self, carrier: _Carrier, stream: EngineStream) -> None:
        """Raises EngineUnavailable for an engine that cannot go on where the first one was."""
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
        carrier.opened_at = trio.current_time()
        current().note(model=opened.model, engine=opened.engine)
        self._joining = None
        self._carriers.append(carrier)
        self._budget.opened()
        if self._replay.nothing_delivered:
            self._dismiss_others(carrier)

    def _leave(self, carrier: _Carrier, lost: EngineLost) -> None:
        self._carriers.remove(carrier)
        now = trio.current_time()
        self._reason = "silent" if isinstance(lost, EngineSilent) else "lost"
        if carrier.draining and not self._carriers:
            self._reason = "draining"
        self._budget.lost(now, now - carrier.opened_at, any_left=bool(self._carriers))
        log.warning("engine lost", session=self._session_id, error=str(lost))
        if not self._carriers and self._budget.exhausted(now):
            self._fail(str(lost))

    async def _push(self, carrier: _Carrier, stream: EngineStream) -> None:
        carrier.window = max(REPLAY_WINDOW, 2 * self.opened.chunk)
        carrier.stream = stream
        while True:
            while carrier.may_push():
                message = carrier.outbox.popleft()
                carrier.pushed(message)
                await stream.send(message)
            carrier.resting = not carrier.outbox
            carrier.wake = trio.Event()
            await carrier.wake.wait()
            carrier.resting = False

    async def _pull(self, carrier: _Carrier, stream: EngineStream) -> None:
        stream.deliver_to(_Pull(self, carrier))
        while True:
            answer = await stream.receive()
            self.note_answer(carrier, answer)
            if not isinstance(answer, Draining):
                await self._answers.put((carrier, answer))

    def note_answer(self, carrier: _Carrier, answer: FromEngine) -> None:
        """Note what an engine has said, before the session takes it."""
        carrier.acknowledge(answer)
        if isinstance(answer, Draining):
            self._reason = "draining"
            self._notify()

    def ready(self) -> bool:
        """Whether the session would take an answer at once."""
        return self._answers.clear and self._sink is not None and self._sink.ready()

    def take(self, carrier: _Carrier, answer: FromEngine) -> None:
        """Fast path of an answer to a session that is ready."""
        self.note_answer(carrier, answer)
        if not isinstance(answer, Draining):
            self._deliver(carrier, answer)

    def _take_now(self, item: _Answer) -> bool:
        if not self.ready():
            return False
        self._deliver(*item)
        return True

    def _deliver(self, carrier: _Carrier, answer: Update | Final) -> None:
        update = self._take_new(carrier, answer)
        if update is not None and self._sink is not None:
            self._sink.take(update)

    # -- changes -----------------------------------------------------------------------------------

    def _dismiss_others(self, heir: _Carrier) -> None:
        """The newest engine is as far as the session; the others may go."""
        for carrier in self._carriers:
            if carrier is not heir:
                carrier.scope.cancel()

    def _fail(self, why: str) -> None:
        log.warning("stream given up", session=self._session_id, error=why)
        self._failed = EngineLost(why)
        self._answers.close()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@define(eq=False)
class ResilientEngines:
    """``engines`` whose streams survive."""

    engines: Engines
    metrics: Metrics
    policy: RetryPolicy = field(factory=RetryPolicy)
    random: Random = field(factory=Random)

    @asynccontextmanager
    async def open_stream(self, model_version: str, opening: Open) -> AsyncIterator[EngineStream]:
        """Raises EngineBusy, EngineUnavailable, EngineLost."""
        budget = RetryBudget(self.policy, self.random)
        stream = ResilientStream(self.engines, model_version, opening, budget, self.metrics)
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
