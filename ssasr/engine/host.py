"""An engine: one recogniser, the thread that runs it, and the streams that share its batches.

``EngineHost.run`` is the engine's whole life: warm up, step while there is work, and leave with the
model thread's exception if it dies, so that the process never stays up without a model. Links (a
WebSocket, or a session in the same process) open streams on it and exchange the messages of
``protocol.recognition``.

Between two steps the device has nothing to do, so only what the next step needs is done there:
streams go on from what was found, the next batch is cut and handed over. Answers are delivered once
the model thread has begun with that, by a task of their own, while the device computes; it lets
others run every few milliseconds, and the step loop goes no more than two batches ahead of it, so
that an engine whose links are slower than its device takes larger steps instead of more memory.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from time import perf_counter

import trio
from attrs import define, frozen

from ssasr.engine.capacity import FIRST_REST, LONGEST_REST, CapacityMeter
from ssasr.engine.load import Load
from ssasr.engine.model_thread import InlineModel, ModelCaller, ModelThread
from ssasr.engine.recognizer import Outcome, Recognizer, State, Work
from ssasr.engine.scheduler import Scheduler, SchedulerStatistics
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
from ssasr.runtime.handoff import HandoffChannel, Sink, Through
from ssasr.telemetry.logs import get_logger
from ssasr.telemetry.metrics import EngineReadings, Metrics

MAX_UNREAD = 1 << 20
"""Bytes of answers a link may leave unread; a session that keeps to its window has few waiting."""

DELIVERY_SECONDS = 0.0005
"""For which answers are delivered before other tasks have their turn."""

LOAD_MEMORY = 10.0
"""Seconds over which the load ratio is an average (its time constant)."""

log = get_logger(__name__)

Batch = tuple[Sequence[StepInput], Sequence[Outcome]]
"""A step that is done."""


@frozen
class HostStatistics:
    model: str
    ready: bool
    draining: bool
    scheduler: SchedulerStatistics
    steps: int
    last_step_seconds: float
    load: float
    """Share of the last ``LOAD_MEMORY`` seconds that the model was at work."""


@define(eq=False)
class Reservation:
    """Room for one stream, kept until it opens."""

    taken: bool = False


class EngineHost:
    """Built in ``cli``; ``run`` must be running for anything to happen."""

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
        """Without a ``diarizer``, streams that ask who speaks get no answer."""
        self.recognizer = recognizer
        self.diarizer = diarizer
        self.name = name
        self.ready = trio.Event()
        self.draining = trio.Event()
        self._model = model
        self._scheduler = Scheduler(
            recognizer.chunk,
            max_streams or recognizer.max_streams,
            recognizer.max_batch,
            recognizer.max_chunks,
            diarizer.hop if diarizer else 0,
        )
        workload = None if max_streams else recognizer.workload
        self._capacity = None if workload is None else CapacityMeter(workload)
        self._links: dict[Stream, HandoffChannel[FromEngine]] = {}
        self._wake = trio.Event()
        self._done, self._batches = trio.open_memory_channel[Batch](1)
        self._undelivered: Batch | None = None
        """The last step, until the next one has begun."""
        self._spent: list[State] = []
        """To be released with the next step."""
        self._steps = 0
        self._last_step_seconds = 0.0
        self._busy = Load(LOAD_MEMORY)
        self._metrics = metrics
        self._meter = metrics.engine_meter(name)
        metrics.watch_engine(
            name,
            EngineReadings(
                streams=lambda: self._scheduler.in_use,
                capacity=lambda: self._scheduler.max_streams,
                load=lambda: self._busy.ratio(trio.current_time()),
                queue_age=lambda: self._queue().oldest_wait,
                backlog=lambda: self._queue().backlog / SAMPLE_RATE,
            ),
        )

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
            places = self._scheduler.max_streams
            model = self.recognizer.name
            log.info("Ready to serve!", model=model, engine=self.name, max_streams=places)
            nursery.start_soon(self._deliver_forever)
            task_status.started()
            await self._step_forever(self._model, trio.lowlevel.current_trio_token())

    async def _measure(self, capacity: CapacityMeter) -> None:
        """Offer what the engine turns out to be able to do, unless it is less than before."""
        before = self._scheduler.max_streams if capacity.seconds else 0
        streams = await self._model.call(capacity.measure)
        self._metrics.measured(self.name, capacity.seconds)
        if streams > before:
            self._scheduler.max_streams = streams
            took = {f"{name}_ms": round(1e3 * took, 2) for name, took in capacity.seconds.items()}
            log.info("Capacity measured", engine=self.name, max_streams=streams, **took)

    async def _measure_forever(self, capacity: CapacityMeter) -> None:
        """Again when there are no streams: what it found may be due to what else ran then."""
        rest = FIRST_REST
        while True:
            await trio.sleep(rest)
            if not self._scheduler.in_use:
                await self._measure(capacity)
                rest = min(2 * rest, LONGEST_REST)

    @contextmanager
    def reserve(self) -> Iterator[Reservation]:
        """Room for one ``open_stream`` inside the block, promised before the stream is known.
        Raises EngineUnavailable before ready and while draining, EngineBusy when full."""
        if not self.ready.is_set() or self.draining.is_set():
            raise EngineUnavailable(f"engine {self.recognizer.name} is not accepting streams")
        if not self._scheduler.reserve():
            raise EngineBusy(f"engine {self.recognizer.name} has no free slot")
        reservation = Reservation()
        try:
            yield reservation
        finally:
            if not reservation.taken:
                self._scheduler.release_place()

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
        """A stream in a place of this host."""
        assert not reservation.taken, "a place is for one stream"
        reservation.taken = True
        stream = self._scheduler.admit_reserved(opening)
        channel = self._links[stream] = HandoffChannel[FromEngine](MAX_UNREAD, answer_weight)
        if self.draining.is_set():
            self._deliver(stream, Draining())  # the others have had theirs
        try:
            yield LocalStream(self, stream, channel, StreamPosition.of(opening))
        finally:
            self.forget(stream)

    def drain(self) -> None:
        """Take no more streams and ask those there are to move."""
        self.draining.set()
        for stream in list(self._links):
            self._deliver(stream, Draining())

    def statistics(self) -> HostStatistics:
        return HostStatistics(
            model=self.recognizer.name,
            ready=self.ready.is_set(),
            draining=self.draining.is_set(),
            scheduler=self._scheduler.statistics(trio.current_time()),
            steps=self._steps,
            last_step_seconds=self._last_step_seconds,
            load=self._busy.ratio(trio.current_time()),
        )

    def _queue(self) -> SchedulerStatistics:
        return self._scheduler.statistics(trio.current_time())

    def feed(self, stream: Stream, message: ToEngine) -> None:
        """A message that ``StreamPosition`` has let pass. Raises LinkFault if it asks for more than
        an engine keeps, EngineLost if the stream has ended."""
        if not self._scheduler.is_current(stream):
            raise EngineLost("the stream has ended")
        if self._scheduler.feed(stream, message, trio.current_time()):
            self._wake.set()

    async def _step_forever(self, model: ModelCaller, token: trio.lowlevel.TrioToken) -> None:
        while True:
            step_inputs = self._scheduler.next_batch()
            if not step_inputs:
                await self._hand_over()
                if not self._scheduler.has_work:
                    self._wake = trio.Event()
                    await self._wake.wait()
                continue
            started = trio.current_time()
            spent, self._spent = self._spent, []
            outcomes = await model.call(
                self._step, step_inputs, works_of(step_inputs), spent, token
            )
            now = trio.current_time()
            self._spent += self._scheduler.complete(step_inputs, outcomes, now)
            self._note_step(step_inputs, started, now)
            await self._hand_over()
            self._undelivered = step_inputs, outcomes

    def _begin_delivery(self) -> None:
        """The model has begun; the answers of the step before may be delivered, unless earlier ones
        wait."""
        if self._undelivered is not None:
            with suppress(trio.WouldBlock):
                self._done.send_nowait(self._undelivered)
                self._undelivered = None

    async def _hand_over(self) -> None:
        """The same, if need be later."""
        undelivered, self._undelivered = self._undelivered, None
        if undelivered is not None:
            await self._done.send(undelivered)

    def _note_step(self, step_inputs: Sequence[StepInput], started: float, now: float) -> None:
        self._steps += 1
        self._last_step_seconds = now - started
        self._busy.worked(now - started, now)
        self.recognizer.worked(now - started, now)
        audio = sum([take.samples for take in step_inputs]) / SAMPLE_RATE
        self._meter.step(len(step_inputs), audio, now - started)

    def _step(
        self,
        step_inputs: Sequence[StepInput],
        works: list[Work],
        spent: Sequence[State],
        token: trio.lowlevel.TrioToken,
    ) -> Sequence[Outcome]:
        """In the model thread: free, make and change states as the takes need, then step."""
        token.run_sync_soon(self._begin_delivery)
        recognizer = self.recognizer
        for state in spent:
            recognizer.release(state)
        for number, take in enumerate(step_inputs):
            if take.fresh:
                state = recognizer.new_state(
                    take.options,
                    take.start,
                    take.committed,
                    take.committed_at,
                    take.language_before,
                )
                take.stream.state = state
                works[number] = Work(state, works[number].audio, take.final_at)
            elif take.changed:
                recognizer.configure(works[number].state, take.options)
        self._listen(step_inputs)
        return recognizer.step(works)

    def _listen(self, step_inputs: Sequence[StepInput]) -> None:
        """In the model thread: who speaks in the windows that are due, in one batch."""
        due = [take for take in step_inputs if take.windows]
        if not due or self.diarizer is None:
            return
        began = perf_counter()
        voices = iter(self.diarizer.listen([window for take in due for window in take.windows]))
        for take in due:
            take.voices = [next(voices) for _ in take.windows]
        self._meter.listened(sum(len(take.windows) for take in due), perf_counter() - began)

    async def _deliver_forever(self) -> None:
        async for step_inputs, outcomes in self._batches:
            began = perf_counter()
            for take, outcome in zip(step_inputs, outcomes, strict=True):
                if take.stream in self._links:  # or it left meanwhile
                    for message in answers(take, outcome):
                        self._deliver(take.stream, message)
                if perf_counter() - began > DELIVERY_SECONDS:
                    await trio.lowlevel.checkpoint()
                    began = perf_counter()

    def _deliver(self, stream: Stream, message: FromEngine) -> None:
        channel = self._links.get(stream)
        if channel is None:
            return  # the link has just gone
        if channel.full:
            log.warning("stream reads no results, dropped", session=stream.session_id)
            self.forget(stream)
        else:
            channel.offer(message)

    def forget(self, stream: Stream) -> None:
        """Drop a stream; whoever receives from it gets EngineLost. May be repeated."""
        channel = self._links.pop(stream, None)
        if channel is None:
            return
        channel.close()
        in_batch = self._scheduler.is_in_batch(stream)
        self._scheduler.release(stream)
        if stream.state is not None and not in_batch:
            self._spent.append(stream.state)


def works_of(step_inputs: Sequence[StepInput]) -> list[Work]:
    """What the recogniser is given; a fresh take's state is still to be made. In the event loop's
    thread: the model thread would share the interpreter with the telling of answers from here
    on, and the device waits for this."""
    return [Work(take.stream.state, take.audio, take.final_at) for take in step_inputs]


@define(eq=False)
class LocalStream:
    """An ``EngineStream`` whose session lives in the same process. A server, which has the link's
    own account of the position, feeds the host and takes ``answers`` as they are."""

    host: EngineHost
    stream: Stream
    answers: HandoffChannel[FromEngine]
    position: StreamPosition
    clear: bool = True

    @property
    def opened(self) -> Opened:
        host = self.host
        tells = host.diarizer is not None
        recognizer = host.recognizer
        return Opened(recognizer.name, recognizer.chunk, host.name, tells, recognizer.translates)

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
        self.answers.deliver_to(Through(self._noted, sink))

    def _noted(self, answer: FromEngine) -> FromEngine:
        self.position.note(answer)
        return answer
