"""The session's third task: the stream to the engine, and the turn policy over what it answers.

Three loops share one stream. ``feed`` sends the audio received, at most ``WINDOW`` ahead of what
the engine has acknowledged; ``collect`` turns its answers into messages; ``watch`` is the only one
that looks at a clock. Everything the client is sent depends on the audio and the positions of its
control messages alone, except for turns that ``watch`` ends because a client has stopped sending.
"""

import math
from collections.abc import Callable, Sequence

import trio
from attrs import frozen

from ssasr.protocol.messages import ServerMessage, SpeakerRevision, Turn
from ssasr.protocol.parameters import SessionParameters, stream_options, turn_settings
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
    Update,
)
from ssasr.routing.engine_stream import Engines, EngineStream
from ssasr.runtime.handoff import HandoffChannel
from ssasr.runtime.process import plain_nursery
from ssasr.session.heartbeat import HEARTBEAT_PERIOD, HeartbeatLog
from ssasr.session.speakers.labels import SpeakerLabels
from ssasr.session.turns import Decision, Send, TurnPolicy
from ssasr.telemetry.metrics import Metrics
from ssasr.telemetry.tracing import NOTHING, current

WINDOW = 8 * SAMPLE_RATE
"""Samples sent to the engine and not yet acknowledged by its updates."""
STALL_GRACE = 1.2
"""Seconds without audio, beyond the turn's maximum silence, that end a turn by the wall clock. A
client may send one-second messages, so anything less would cut into live speech."""


@frozen
class Samples:
    """PCM as the engine takes it (``recognition.Audio``)."""

    pcm: bytes


@frozen
class Settings:
    """New parameters from here on."""

    parameters: SessionParameters


@frozen
class Endpoint:
    """The client wants the turn to end here."""


Input = Samples | Settings | Endpoint


class Inference:
    """``run`` returns when all input has been answered. Raises EngineError. What comes while
    nothing waits is dealt with at once, by whoever puts it in (``handoff``)."""

    def __init__(
        self,
        parameters: SessionParameters,
        engines: Engines,
        metrics: Metrics,
        inputs: HandoffChannel[Input],
        messages: HandoffChannel[ServerMessage],
    ) -> None:
        self.samples = 0
        """Sent to the engine so far; the stream time of the next sample."""
        self._parameters = parameters
        self._options = stream_options(parameters)
        self._engines = engines
        self._metrics = metrics
        self._inputs = inputs
        self._messages = messages
        self._acknowledged = 0
        self._progress = trio.Event()
        self._awaited = False
        """Somebody waits for progress."""
        self._finalizing = False
        self._last_audio = trio.current_time()
        self._spoke = trio.Event()
        self._asked_to_finalize = math.nan
        self._deciding = trio.Lock()
        self._shown_turn = -1
        self._shown = 0
        self._turns = self._words = 0
        self._span = self._finalization = NOTHING
        self._heartbeat = HeartbeatLog(trio.current_time())
        self._beating = trio.Event()
        self._stream: EngineStream
        self._policy: TurnPolicy

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
            self._stream = stream
            tells = self._options.speakers and stream.opened.speakers
            self._policy = TurnPolicy(
                turn_settings(self._parameters),
                chunk=stream.opened.chunk,
                speakers=SpeakerLabels(self._parameters.max_speakers) if tells else None,
            )
            opened(stream.opened)
            self._inputs.set_fast_path(self._feed_now)
            stream.deliver_to(self)
            self._look_for_heartbeat()
            async with plain_nursery() as nursery:
                nursery.start_soon(self._collect)
                nursery.start_soon(self._watch)
                nursery.start_soon(self._beat)
                await self._feed()
                nursery.cancel_scope.cancel()

    async def _feed(self) -> None:
        while True:
            try:
                item = await self._inputs.get()
            except trio.EndOfChannel:
                break
            match item:
                case Samples():
                    while self.samples - self._acknowledged > WINDOW:
                        await self._wait_progress()
                    await self._stream.send(Audio(self.samples, item.pcm))
                    self._fed(item)
                case Settings(parameters):
                    await self._reconfigure(parameters)
                case Endpoint():
                    await self._end_turn()
        await self._end_turn()
        async with self._deciding:
            await self._perform(self._policy.conclude())

    def _feed_now(self, item: Input) -> bool:
        """Fast path of audio."""
        if not isinstance(item, Samples) or self.samples - self._acknowledged > WINDOW:
            return False
        if not self._stream.offer(Audio(self.samples, item.pcm)):
            return False
        self._fed(item)
        return True

    def _fed(self, item: Samples) -> None:
        self.samples += len(item.pcm) // 2
        self._last_audio = trio.current_time()
        self._spoke.set()

    async def _wait_progress(self) -> None:
        self._awaited = True
        await self._progress.wait()

    def _progressed(self) -> None:
        if self._awaited:
            self._awaited = False
            self._progress.set()
            self._progress = trio.Event()

    async def _end_turn(self) -> None:
        """Have everything up to here finalized. No later audio goes to the engine before that, so
        that what is said does not depend on how far ahead the client was."""
        at = self.samples
        async with self._deciding:
            await self._perform(self._policy.force(at))
        while not self._policy.settled(at):
            await self._wait_progress()

    async def _reconfigure(self, parameters: SessionParameters) -> None:
        self._parameters = parameters
        self._look_for_heartbeat()
        self._policy.configure(turn_settings(parameters), at=self.samples)
        options = stream_options(parameters)
        if options != self._options:
            self._options = options
            await self._stream.send(Configure(options))

    async def _collect(self) -> None:
        while True:
            answer = await self._stream.receive()
            async with self._deciding:
                await self._perform(self._decide(answer))
            self._progressed()

    def ready(self) -> bool:
        """Whether ``take`` may be called: nothing that was decided is still on its way."""
        return self._messages.clear and not self._deciding.locked()

    def take(self, answer: FromEngine) -> None:
        """Fast path of an answer."""
        for decision in self._decide(answer):
            match decision:
                case Send(message):
                    self._measure_lag(message)
                    self._messages.put_nowait(message)
                case Finalize():
                    self._note_finalize(decision)
                    self._stream.offer(decision)  # unless the stream has failed, as all will see
        self._progressed()

    def _decide(self, answer: FromEngine) -> Sequence[Decision]:
        match answer:
            case Update():
                if not self._finalizing:
                    self._acknowledged = max(self._acknowledged, answer.position)
                self._heartbeat.update(answer.speech)
                return self._policy.update(answer)
            case Final():
                # The engine listens again to what comes after the end of the segment, however far
                # ahead it was.
                self._acknowledged, self._finalizing = answer.at, False
                waited = trio.current_time() - self._asked_to_finalize
                self._metrics.finalization.observe(waited)
                self._words += len(answer.words)
                self._finalization.note(words=len(answer.words))
                self._finalization.end()
                return self._policy.final(answer)
            case Draining():
                return ()  # the process is ending anyway when nothing replaces its engine

    async def _perform(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Send(message):
                    self._measure_lag(message)
                    await self._messages.put(message)
                case Finalize():
                    self._note_finalize(decision)
                    await self._stream.send(decision)

    def _note_finalize(self, asked: Finalize) -> None:
        self._finalizing = True
        self._asked_to_finalize = trio.current_time()
        self._finalization = self._span.child(
            "finalize", segment=asked.segment, position_seconds=asked.at / SAMPLE_RATE
        )

    def _measure_lag(self, message: ServerMessage) -> None:
        """Of the words that appear for the first time. Now is the end of what was sent, which is
        what a client that streams live has just said."""
        if isinstance(message, SpeakerRevision):
            self._metrics.revised_turns.inc(len(message.revisions))
        if not isinstance(message, Turn):
            return
        if message.turn_order != self._shown_turn:
            self._shown_turn, self._shown = message.turn_order, 0
            self._turns += 1
        inputs = self.samples / SAMPLE_RATE
        for word in message.words[self._shown :]:
            self._metrics.word_lag.observe(inputs - word.end / 1_000)
        self._shown = max(self._shown, len(message.words))

    def _look_for_heartbeat(self) -> None:
        if self._parameters.session_heartbeat:
            self._beating.set()

    async def _beat(self) -> None:
        """Only for clients that ask: some take a message they do not know for an error."""
        await self._beating.wait()
        began = self._heartbeat.began
        while True:
            beats = (trio.current_time() - began) // HEARTBEAT_PERIOD
            await trio.sleep_until(began + (beats + 1) * HEARTBEAT_PERIOD)
            if self._parameters.session_heartbeat:
                await self._messages.put(self._heartbeat.beat(self.samples, trio.current_time()))

    async def _watch(self) -> None:
        """End turns that a client leaves open by sending nothing more."""
        while True:
            silence = turn_settings(self._parameters).max_turn_silence / SAMPLE_RATE
            patience = silence + STALL_GRACE
            stalled = self._last_audio + patience
            if trio.current_time() >= stalled:
                if self._behind():
                    # Whether a turn is open is not known yet; and if the engine is far behind, it
                    # is not the client who has stopped.
                    await self._wait_progress()
                    continue
                if self._policy.in_turn:
                    await self._end_turn()
                # Nothing is open: whatever opens a turn now is audio, which moves the deadline.
                self._spoke = trio.Event()
                if self._last_audio + patience <= trio.current_time():
                    await self._spoke.wait()
                continue
            await trio.sleep_until(stalled)

    def _behind(self) -> bool:
        """The engine has audio that it could have answered."""
        return self.samples - self._acknowledged >= self._stream.opened.chunk
