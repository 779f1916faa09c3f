"""The session's third task: the stream to the engine, and the turn policy applied to its answers.

Two stages share the stream: one sends the audio received, at most ``WINDOW`` ahead of what the
engine has acknowledged; the other turns answers into messages. What the client is sent depends only
on its audio and on the positions of its control messages. The only exception, and the only use of a
clock, is ``_watch``, which ends turns that a client leaves open by sending nothing.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence

import trio
from attrs import field, frozen

from ssasr.protocol.messages import EndpointReached, SessionMessage, SpeakerRevision, Turn
from ssasr.protocol.parameters import SessionParameters
from ssasr.protocol.recognition import (
    SAMPLE_RATE,
    Audio,
    Configure,
    Draining,
    Final,
    Finalize,
    FromEngine,
    Open,
    Opened,
    Route,
    ToEngine,
    Update,
)
from ssasr.protocol.settings import stream_options, turn_settings
from ssasr.protocol.stream_position import StreamPosition
from ssasr.protocol.values import value
from ssasr.routing.engine_stream import Engines, EngineStream
from ssasr.runtime.handoff import HandoffChannel, Stage
from ssasr.runtime.process import plain_nursery
from ssasr.session.heartbeat import HEARTBEAT_PERIOD, HeartbeatLog
from ssasr.session.speakers.labels import SpeakerLabels
from ssasr.session.spoken import SpokenPosition
from ssasr.session.turns import Decision, Send, TurnPolicy
from ssasr.telemetry.metrics import Metrics
from ssasr.telemetry.tracing import NOTHING, current

WINDOW = 8 * SAMPLE_RATE
"""Samples sent to the engine and not yet acknowledged by its updates."""
STALL_GRACE = 1.2
"""Seconds without audio, beyond the turn's maximum silence, after which the clock ends a turn. A
client may send one message a second, so less than that would cut live speech."""
CATCH_UP = 0.1
"""Seconds more in which all that waits is read: the process may not have been scheduled while the
client spoke on."""


@value
class Samples:
    """PCM as the engine takes it (``recognition.Audio``)."""

    pcm: bytes


@frozen
class Settings:
    """New parameters from here on."""

    parameters: SessionParameters


@frozen
class Endpoint:
    """The client wants the turn to end here, and, if ``acknowledged``, to learn when that has been
    done."""

    acknowledged: bool = False


Input = Samples | Settings | Endpoint


@frozen
class SessionTotals:
    """What a session has come to."""

    audio_seconds: float = 0.0
    """Given to its engines."""
    turns: int = 0
    """With words."""
    route: Route = field(factory=Route)


class Inference:
    """``run`` returns when all input has been answered. Raises EngineError."""

    def __init__(
        self,
        parameters: SessionParameters,
        engines: Engines,
        metrics: Metrics,
        inputs: HandoffChannel[Input],
        messages: HandoffChannel[SessionMessage],
    ) -> None:
        self._parameters = parameters
        self._options = stream_options(parameters)
        self._engines = engines
        self._metrics = metrics
        self._inputs = inputs
        self._messages = messages
        self._position = StreamPosition()
        self._endpoints: deque[int] = deque()
        """Positions that are to be acknowledged."""
        self._hold = 0
        """Audio beyond this sample is sent only when everything up to it is final."""
        self._progress = trio.Event()
        self._awaited = False
        """A task waits for ``_progress``."""
        self._now = trio.lowlevel.current_clock().current_time
        """``trio.current_time``, at half its price; for what is done for each message."""
        self._last_audio = self._now()
        self._spoke = trio.Event()
        self._holding = False
        """Audio waits because the engine is far behind, or a forced end of a turn not answered."""
        self._spoken = SpokenPosition(self._last_audio)
        self._turn_ended = math.nan
        """When the client had spoken what ended the turn that is being finalized."""
        self._shown_turn = -1
        self._shown = 0
        self._turns = self._words = 0
        self._span = self._finalization = NOTHING
        self._heartbeat = HeartbeatLog(trio.current_time())
        self._beating = trio.Event()
        self._route: Callable[[], Route] = Route
        self._stream: EngineStream
        self._policy: TurnPolicy

    @property
    def samples(self) -> int:
        """Sent to the engine so far; the stream time of the next sample."""
        return self._position.sent

    @property
    def totals(self) -> SessionTotals:
        return SessionTotals(self.samples / SAMPLE_RATE, self._turns, self._route())

    async def run(
        self, session_id: str, model_version: str, opened: Callable[[Opened], None]
    ) -> None:
        """``opened`` gets what the engine says of itself as soon as the engine has opened the
        stream."""
        self._span = current()
        try:
            await self._run(Open(session_id, self._options), model_version, opened)
        finally:
            self._finalization.end()
            seconds = self.samples / SAMPLE_RATE
            self._span.note(audio_seconds=seconds, turns=self._turns, words=self._words)

    async def _run(
        self, opening: Open, model_version: str, opened: Callable[[Opened], None]
    ) -> None:
        async with self._engines.open_stream(model_version, opening) as stream:
            self._stream, self._position = stream, stream.position
            self._route = lambda: stream.route
            labels = self._options.speakers and stream.opened.speakers
            self._policy = TurnPolicy(
                turn_settings(self._parameters),
                chunk=stream.opened.chunk,
                speakers=SpeakerLabels(self._parameters.max_speakers) if labels else None,
            )
            opened(stream.opened)
            self._look_for_heartbeat()
            outlet = _DecisionOutlet(self._messages, stream)
            answers = Stage(stream, self._decide, outlet, self._progressed)
            async with plain_nursery() as nursery:
                nursery.start_soon(answers.run)
                nursery.start_soon(self._watch)
                nursery.start_soon(self._beat)
                await Stage(self._inputs, self._prepare, self).run()
                for message in self._end_turn():
                    await self.send(message)
                while answers.busy or not self._policy.settled(self.samples):
                    await self._wait_progress()
                nursery.cancel_scope.cancel()
            for decision in self._noted(self._policy.conclude()):
                await outlet.send(decision)

    # -- input, to the engine ---------------------------------------------------------------------

    def _prepare(self, item: Input) -> Sequence[ToEngine]:
        """The messages for the engine that follow from an input."""
        match item:
            case Samples(pcm):
                self._last_audio = self._now()
                self._spoke.set()
                return (Audio(self._position.sent, pcm),)
            case Settings(parameters):
                return self._reconfigure(parameters)
            case Endpoint(acknowledged):
                if acknowledged:
                    self._endpoints.append(self.samples)
                return self._end_turn()

    def _end_turn(self) -> Sequence[Finalize]:
        """Finalize everything up to here. Later audio is sent only after that, so that the result
        does not depend on how far ahead the client is."""
        self._hold = self.samples
        return self._force()

    def _force(self) -> Sequence[Finalize]:
        """End the turn here, if one is open."""
        decisions = self._policy.force(self.samples)
        for decision in decisions:
            self._note_finalize(decision, self.samples)
        return decisions

    def _reconfigure(self, parameters: SessionParameters) -> Sequence[Configure]:
        self._parameters = parameters
        self._look_for_heartbeat()
        self._policy.configure(turn_settings(parameters), at=self.samples)
        options = stream_options(parameters)
        if options == self._options:
            return ()
        self._options = options
        return (Configure(options),)

    # As an outlet: the stream, while the engine is not to be waited for.

    @property
    def clear(self) -> bool:
        return self._stream.clear and self._may_go_on()

    def offer(self, message: ToEngine) -> None:
        self._stream.offer(message)

    async def send(self, message: ToEngine) -> None:
        """Raises EngineLost."""
        if not isinstance(message, Finalize) and not self._may_go_on():
            self._spoken.hold(trio.current_time(), self.samples)
            self._holding = True
            while not self._may_go_on():
                await self._wait_progress()
            self._holding = False
            self._last_audio = trio.current_time()
            self._spoken.release(self._last_audio)
        await self._stream.send(message)

    def _may_go_on(self) -> bool:
        at = self._position
        return at.sent - at.acknowledged <= WINDOW and at.start >= self._hold

    async def _wait_progress(self) -> None:
        self._awaited = True
        await self._progress.wait()

    def _progressed(self) -> None:
        if self._awaited:
            self._awaited = False
            self._progress.set()
            self._progress = trio.Event()

    # -- what it answers, to the client ------------------------------------------------------------

    def _decide(self, answer: FromEngine) -> Sequence[Decision]:
        """The decisions that follow from an answer."""
        decisions: Sequence[Decision] = ()
        match answer:
            case Update():
                if self._parameters.session_heartbeat:
                    self._heartbeat.update(answer.speech)
                decisions = self._policy.update(answer)
            case Final():
                self._metrics.finalization.observe(trio.current_time() - self._turn_ended)
                self._words += len(answer.words)
                self._finalization.note(words=len(answer.words))
                self._finalization.end()
                decisions = self._policy.final(answer)
            case Draining():
                pass  # the process is ending anyway when nothing replaces its engine
        if self._endpoints:
            decisions = [*decisions, *self._endpoints_reached()]
        return self._noted(decisions)

    def _endpoints_reached(self) -> list[Decision]:
        reached: list[Decision] = []
        while self._endpoints and self._policy.settled(self._endpoints[0]):
            self._endpoints.popleft()
            reached.append(Send(EndpointReached()))
        return reached

    def _noted(self, decisions: Sequence[Decision]) -> Sequence[Decision]:
        """The same decisions, after noting them in metrics and traces."""
        for decision in decisions:
            if isinstance(decision, Finalize):
                self._note_finalize(decision, self._position.acknowledged)
            elif isinstance(decision.message, Turn):
                self._measure_lag(decision.message)
            elif isinstance(decision.message, SpeakerRevision):
                self._metrics.revised_turns.inc(len(decision.message.revisions))
        return decisions

    def _note_finalize(self, asked: Finalize, decided: int) -> None:
        """``decided``: stream position of what ended the turn."""
        behind = max(self._spoken_to() - decided, 0) / SAMPLE_RATE
        self._turn_ended = trio.current_time() - behind
        self._finalization = self._span.child(
            "finalize", segment=asked.segment, position_seconds=asked.at / SAMPLE_RATE
        )

    def _measure_lag(self, turn: Turn) -> None:
        """Observe the lag of the words that appear for the first time: from the end of a word to
        what a live client has just spoken."""
        if turn.turn_order != self._shown_turn:
            self._shown_turn, self._shown = turn.turn_order, 0
            self._turns += 1
        spoken = self._spoken_to() / SAMPLE_RATE
        for word in turn.words[self._shown :]:
            self._metrics.word_lag.observe(max(spoken - word.end / 1_000, 0.0))
        self._shown = max(self._shown, len(turn.words))

    def _spoken_to(self) -> int:
        """The stream position that a live client has just spoken."""
        return self._spoken.position(self._now(), self.samples, self._last_audio)

    # -- what the clock decides --------------------------------------------------------------------

    def _look_for_heartbeat(self) -> None:
        if self._parameters.session_heartbeat:
            self._beating.set()

    async def _beat(self) -> None:
        """Send heartbeats, if the client asks for them: some clients fail on unknown messages."""
        await self._beating.wait()
        began = self._heartbeat.began
        while True:
            beats = (trio.current_time() - began) // HEARTBEAT_PERIOD
            await trio.sleep_until(began + (beats + 1) * HEARTBEAT_PERIOD)
            if self._parameters.session_heartbeat:
                at = self._position
                beat = self._heartbeat.beat(at.sent, at.acknowledged, trio.current_time())
                await self._messages.send(beat)

    async def _watch(self) -> None:
        """End turns that the client leaves open by sending nothing more."""
        while True:
            silence = turn_settings(self._parameters).max_turn_silence / SAMPLE_RATE
            patience = silence + STALL_GRACE
            stalled = self._last_audio + patience
            if trio.current_time() >= stalled:
                if self._behind():
                    # The engine has not answered all audio, so whether a turn is open is not known
                    # yet, and the pause may be the engine's and not the client's.
                    await self._wait_progress()
                    continue
                if self._policy.in_turn:
                    await self._end_stalled_turn()
                # No turn is open. Only audio can open one, and that moves the deadline.
                self._spoke = trio.Event()
                if self._last_audio + patience <= trio.current_time():
                    await self._spoke.wait()
                continue
            await trio.sleep_until(stalled)
            if self._last_audio + patience <= trio.current_time():
                await _sleep_on_time(CATCH_UP)

    async def _end_stalled_turn(self) -> None:
        at = self.samples
        for message in self._force():
            await self._stream.send(message)
        while not self._policy.settled(at):
            await self._wait_progress()

    def _behind(self) -> bool:
        """Whether the engine has a whole chunk that it has not answered, or audio waits to be sent:
        one that catches up in one go may have answered all that it has before what waits is
        sent."""
        return self._holding or self._position.unacknowledged >= self._stream.opened.chunk


async def _sleep_on_time(seconds: float) -> None:
    """Sleep, and again until it has lasted no longer than twice as long."""
    late = math.inf
    while late > seconds:
        due = trio.current_time() + seconds
        await trio.sleep_until(due)
        late = trio.current_time() - due


@frozen(eq=False)
class _DecisionOutlet:
    """The outlet of decisions: messages go to the client, Finalize to the engine."""

    messages: HandoffChannel[SessionMessage]
    stream: EngineStream

    @property
    def clear(self) -> bool:
        return self.messages.clear and self.stream.clear

    def offer(self, decision: Decision) -> None:
        if isinstance(decision, Finalize):
            self.stream.offer(decision)
        else:
            self.messages.offer(decision.message)

    async def send(self, decision: Decision) -> None:
        if isinstance(decision, Finalize):
            await self.stream.send(decision)
        else:
            await self.messages.send(decision.message)
