"""An engine: one recogniser, the threads that run it, and the streams that share its batches.

``EngineHost.run`` warms the model up and then steps while there is work. It raises what the model
thread raised, so that the process ends and never stays up without a model. Links (a WebSocket, or a
session in the same process) open streams on the host and exchange the messages of
``protocol.recognition``.

The device is idle between two steps, so only what the next step needs is done then: streams are
moved on by the outcomes, and the next batch is cut and handed over. The answers of a step are
delivered while the device computes the next one, by a separate task that lets other tasks run every
few milliseconds. The step loop stays at most two batches ahead of it, so that an engine whose links
are slower than its device takes larger steps and not more memory.

A recogniser on a processor may run several steps at once (``Recognizer.steps_at_once``). Each takes
its share of the streams that are ready, and none that is in another step.
"""

import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from time import perf_counter

import trio
from attrs import define

from ssasr.engine.capacity import FIRST_REST, LONGEST_REST, CapacityMeter
from ssasr.engine.load import Load
from ssasr.engine.model_thread import InlineModel, ModelCaller, ModelThread
from ssasr.engine.recognizer import Outcome, Recognizer, State, Work
from ssasr.engine.scheduler import Scheduler
from ssasr.engine.speakers.windows import Diarizer
from ssasr.engine.streams import LinkFault, StepInput, Stream, answers
from ssasr.errors import EngineBusy, EngineLost, EngineUnavailable
from ssasr.protocol.recognition import (
    SAMPLE_RATE,
    Draining,
    FromEngine,
    Open,
    Opened,
    Route,
    ToEngine,
    answer_weight,
)
from ssasr.protocol.stream_position import OutOfPlace, StreamPosition
from ssasr.runtime.handoff import HandoffChannel, Sink
from ssasr.telemetry.logs import get_logger
from ssasr.telemetry.metrics import Metrics

MAX_UNREAD = 1 << 20
"""Bytes of answers that a link may leave unread before its stream is dropped. A session that keeps
to its window has few waiting."""

DELIVERY_SECONDS = 0.0005
"""For how long answers are delivered before other tasks may run."""

LOAD_MEMORY = 10.0
"""Seconds over which the load ratio is an average (its time constant)."""

log = get_logger(__name__)

Batch = tuple[Sequence[StepInput], Sequence[Outcome]]
"""The inputs and outcomes of a step."""


@define(eq=False)
class Reservation:
    """Room for one stream, kept until it opens."""

    taken: bool = False


class EngineHost:
    """Created in ``cli``. ``run`` must be running for streams to be accepted and answered."""

    def __init__(
        self,
        recognizer: Recognizer,
        model: ModelThread | InlineModel,
        metrics: Metrics,
        *,
        name: str = "",
        max_streams: int | None = None,
        diarizer: Diarizer | None = None,
    ) -> None:
        """Without a ``diarizer``, streams that ask for speakers get none."""
        self.recognizer = recognizer
        self.diarizer = diarizer
        self.name = name
        self.ready = trio.Event()
        self.draining = trio.Event()
        self._model = model
        self.scheduler = Scheduler(
            recognizer.chunk,
            max_streams or recognizer.max_streams,
            recognizer.max_batch,
            recognizer.max_chunks,
            diarizer.hop if diarizer else 0,
            recognizer.steps_at_once,
        )
        workload = None if max_streams else recognizer.workload
        self._capacity = None if workload is None else CapacityMeter(workload)
        self._links: dict[Stream, HandoffChannel[FromEngine]] = {}
        self._wake = trio.Event()
        self._done, self._batches = trio.open_memory_channel[Batch](1)
        self._undelivered: deque[Batch] = deque()
        """The answers of the last step, until the next one has begun; in the order of the steps."""
        self._spent: deque[State] = deque()
        """States to release with the next step."""
        self._opening = threading.Lock()
        """Held by a step that releases and creates states: what was spent is free then."""
        self._busy = Load(LOAD_MEMORY)
        self._metrics = metrics
        # Labels are looked up once: a step is too often for that.
        self._steps, self._batch = metrics.steps.labels(name), metrics.batch.labels(name)
        self._audio = metrics.engine_audio.labels(name)
        self._windows = metrics.speaker_windows.labels(name)
        self._window_seconds = metrics.speaker_seconds.labels(name)
        self._show_state()

    def _show_state(self) -> None:
        """In the metrics, each time they are read."""
        metrics, name, scheduler, now = self._metrics, self.name, self.scheduler, trio.current_time
        metrics.streams.labels(name).set_function(lambda: scheduler.in_use)
        metrics.capacity.labels(name).set_function(lambda: scheduler.max_streams)
        metrics.load.labels(name).set_function(lambda: self._busy.ratio(now()))
        metrics.queue_age.labels(name).set_function(lambda: scheduler.longest_wait(now()))
        metrics.backlog.labels(name).set_function(lambda: scheduler.backlog / SAMPLE_RATE)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Started means ready. Raises what the model thread raised."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._model.run)
            await self._model.call(self.recognizer.warm_up)
            if self.diarizer is not None:
                await self._model.call(self.diarizer.warm_up)
            if self._capacity is not None:
                await self._measure(self._capacity)
                nursery.start_soon(self._measure_forever, self._capacity)
            self.ready.set()
            places = self.scheduler.max_streams
            model = self.recognizer.name
            log.info("Ready to serve!", model=model, engine=self.name, max_streams=places)
            nursery.start_soon(self._deliver_forever)
            task_status.started()
            for _ in range(self.recognizer.steps_at_once):
                nursery.start_soon(
                    self._step_forever, self._model, trio.lowlevel.current_trio_token()
                )

    async def _measure(self, capacity: CapacityMeter) -> None:
        """Measure how many streams the engine keeps up with, and raise ``max_streams`` to that. It
        is never lowered."""
        before = self.scheduler.max_streams if capacity.seconds else 0
        streams = await self._model.call(capacity.measure)
        for unit, seconds in capacity.seconds.items():
            self._metrics.units.labels(self.name, unit).set(seconds)
        if streams > before:
            self.scheduler.max_streams = streams
            took = {f"{name}_ms": round(1e3 * took, 2) for name, took in capacity.seconds.items()}
            log.info("Capacity measured", engine=self.name, max_streams=streams, **took)

    async def _measure_forever(self, capacity: CapacityMeter) -> None:
        """Repeat the measurement while there are no streams: a result may have been too low because
        of what else was running."""
        rest = FIRST_REST
        while True:
            await trio.sleep(rest)
            if not self.scheduler.in_use:
                await self._measure(capacity)
                rest = min(2 * rest, LONGEST_REST)

    @contextmanager
    def reserve(self) -> Iterator[Reservation]:
        """Reserve room for one stream for the duration of the block, before its Open has come.
        Raises EngineUnavailable before ready and while draining, EngineBusy when full."""
        if not self.ready.is_set() or self.draining.is_set():
            raise EngineUnavailable(f"engine {self.recognizer.name} is not accepting streams")
        if not self.scheduler.reserve():
            raise EngineBusy(f"engine {self.recognizer.name} has no free slot")
        reservation = Reservation()
        try:
            yield reservation
        finally:
            if not reservation.taken:
                self.scheduler.release_place()

    @asynccontextmanager
    async def open_stream(self, opening: Open) -> AsyncIterator["LocalStream"]:
        """Raises as ``reserve``."""
        with self.reserve() as reservation:
            async with self.open_reserved(opening, reservation) as stream:
                yield stream

    @asynccontextmanager
    async def open_reserved(
        self, opening: Open, reservation: Reservation
    ) -> AsyncIterator["LocalStream"]:
        """Open a stream in the reserved place."""
        assert not reservation.taken, "a place is for one stream"
        reservation.taken = True
        stream = self.scheduler.admit_reserved(opening)
        channel = self._links[stream] = HandoffChannel[FromEngine](MAX_UNREAD, answer_weight)
        if self.draining.is_set():
            self._deliver(stream, Draining())  # drain has sent it to the other streams
        try:
            yield LocalStream(self, stream, channel, StreamPosition.of(opening))
        finally:
            self.forget(stream)

    def drain(self) -> None:
        """Accept no more streams and tell the open ones to move to another engine."""
        self.draining.set()
        for stream in list(self._links):
            self._deliver(stream, Draining())

    def feed(self, stream: Stream, message: ToEngine) -> None:
        """A message that ``StreamPosition`` has let pass. Raises LinkFault if it asks for more than
        an engine keeps, EngineLost if the stream has ended."""
        if not self.scheduler.is_current(stream):
            raise EngineLost("the stream has ended")
        if self.scheduler.feed(stream, message, trio.current_time()):
            self._wake.set()

    async def _step_forever(self, model: ModelCaller, token: trio.lowlevel.TrioToken) -> None:
        while True:
            if self._wake.is_set():
                self._wake = trio.Event()
            step_inputs = self.scheduler.next_batch()
            if not step_inputs:
                await self._hand_over()
                await self._wake.wait()
                continue
            if self.scheduler.has_work:
                self._wake.set()  # the rest is for whoever waits
            started = trio.current_time()
            outcomes = await model.call(self._step, step_inputs, works_of(step_inputs), token)
            now = trio.current_time()
            await self._hand_over()
            # At once, so that no other step can answer these streams before this one.
            self._spent += self.scheduler.complete(step_inputs, outcomes, now)
            self._undelivered.append((step_inputs, outcomes))
            self._note_step(step_inputs, started, now)

    def _begin_delivery(self) -> None:
        """Called when the model thread has begun a step: pass the answers of the step before to the
        delivering task, unless that is still busy with earlier ones."""
        with suppress(trio.WouldBlock):
            while self._undelivered:
                self._done.send_nowait(self._undelivered[0])
                self._undelivered.popleft()

    async def _hand_over(self) -> None:
        """Pass them on, waiting until the delivering task takes them."""
        while self._undelivered:
            await self._done.send(self._undelivered.popleft())

    def _note_step(self, step_inputs: Sequence[StepInput], started: float, now: float) -> None:
        seconds = now - started
        self._busy.worked(seconds / self.recognizer.steps_at_once, now)
        self.recognizer.worked(seconds, now)
        self._steps.observe(seconds)
        self._batch.observe(len(step_inputs))
        self._audio.inc(sum([share.samples for share in step_inputs]) / SAMPLE_RATE)

    def _step(
        self,
        step_inputs: Sequence[StepInput],
        works: list[Work],
        token: trio.lowlevel.TrioToken,
    ) -> Sequence[Outcome]:
        """In the model thread: release, create and configure states as the inputs need, then
        step."""
        token.run_sync_soon(self._begin_delivery)
        recognizer = self.recognizer
        with self._opening:
            while self._spent:
                recognizer.release(self._spent.popleft())
            for number, share in enumerate(step_inputs):
                if share.fresh:
                    state = recognizer.new_state(share.options, share.start)
                    share.stream.state = state
                    works[number] = Work(state, works[number].audio, share.final_at)
                elif share.changed:
                    recognizer.configure(works[number].state, share.options)
        self._find_voices(step_inputs)
        return recognizer.step(works)

    def _find_voices(self, step_inputs: Sequence[StepInput]) -> None:
        """In the model thread: find the speakers in all windows that are due, in one batch."""
        due = [share for share in step_inputs if share.windows]
        if not due or self.diarizer is None:
            return
        began = perf_counter()
        voices = iter(
            self.diarizer.find_voices([window for share in due for window in share.windows])
        )
        for share in due:
            share.voices = [next(voices) for _ in share.windows]
        self._windows.inc(sum(len(share.windows) for share in due))
        self._window_seconds.inc(perf_counter() - began)

    async def _deliver_forever(self) -> None:
        async for step_inputs, outcomes in self._batches:
            began = perf_counter()
            for share, outcome in zip(step_inputs, outcomes, strict=True):
                if share.stream in self._links:  # it may have left meanwhile
                    for message in answers(share, outcome):
                        self._deliver(share.stream, message)
                if perf_counter() - began > DELIVERY_SECONDS:
                    await trio.lowlevel.checkpoint()
                    began = perf_counter()

    def _deliver(self, stream: Stream, message: FromEngine) -> None:
        channel = self._links.get(stream)
        if channel is None:
            return  # the link has just ended
        if channel.full:
            log.warning("stream reads no results, dropped", session=stream.session_id)
            self.forget(stream)
        else:
            channel.offer(message)

    def forget(self, stream: Stream) -> None:
        """Drop a stream; its ``receive`` raises EngineLost. May be called more than once."""
        channel = self._links.pop(stream, None)
        if channel is None:
            return
        channel.close()
        in_batch = self.scheduler.is_in_batch(stream)
        self.scheduler.release(stream)
        if stream.state is not None and not in_batch:
            self._spent.append(stream.state)


def works_of(step_inputs: Sequence[StepInput]) -> list[Work]:
    """What the recogniser is given; the state of a fresh input is still to be created. Made in the
    event loop's thread, because once the model thread has begun it competes with the delivery of
    answers for the interpreter while the device waits."""
    return [Work(share.stream.state, share.audio, share.final_at) for share in step_inputs]


@define(eq=False)
class LocalStream:
    """An ``EngineStream`` for a session in the same process. An ``EngineServer`` uses ``answers``
    and ``EngineHost.feed`` directly, because its link has the position already."""

    host: EngineHost
    stream: Stream
    answers: HandoffChannel[FromEngine]
    position: StreamPosition
    clear: bool = True

    @property
    def opened(self) -> Opened:
        host = self.host
        speakers = host.diarizer is not None
        recognizer = host.recognizer
        return Opened(recognizer.name, recognizer.chunk, host.name, speakers, recognizer.translates)

    @property
    def route(self) -> Route:
        return Route(self.host.name)

    def offer(self, message: ToEngine) -> None:
        """Raises as ``EngineHost.feed``."""
        try:
            self.position.note(message)
        except OutOfPlace as fault:
            raise LinkFault(str(fault)) from None
        self.host.feed(self.stream, message)

    async def send(self, message: ToEngine) -> None:
        """Raises as ``EngineHost.feed``."""
        self.offer(message)
        await trio.lowlevel.checkpoint()

    async def receive(self) -> FromEngine:
        """Raises EngineLost."""
        try:
            return self._noted(await self.answers.receive())
        except trio.EndOfChannel:
            raise EngineLost("the engine has ended the stream") from None

    def deliver_to(self, sink: Sink[FromEngine]) -> None:
        self.answers.deliver_to(sink, self._noted)

    def _noted(self, answer: FromEngine) -> FromEngine:
        self.position.note(answer)
        return answer
