"""An engine: one recogniser, the thread that runs it, and the streams that share its batches.

``EngineHost.run`` is the engine's whole life: warm up, step while there is work, and leave with the
model thread's exception if it dies, so that the process never stays up deaf. Links (a WebSocket, or
a session in the same process) open streams on it and exchange the messages of
``protocol.recognition``.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import trio
from attrs import define, frozen

from ssasr.engine.device_memory import reserved_bytes
from ssasr.engine.load import Load
from ssasr.engine.model_thread import InlineModel, ModelCaller, ModelThread
from ssasr.engine.recognizer import Outcome, Recognizer, State, Work
from ssasr.engine.scheduler import Scheduler, SchedulerStatistics
from ssasr.engine.streams import Stream, Take
from ssasr.errors import EngineBusy, EngineLost, EngineUnavailable
from ssasr.observability import EngineReadings, Metrics, get_logger
from ssasr.protocol.recognition import (
    SAMPLE_RATE,
    Draining,
    FromEngine,
    Open,
    Opened,
    ToEngine,
)

MAX_UNREAD = 1_024
"""Results a link may leave unread. A session that keeps to its window never has a tenth."""

LOAD_MEMORY = 10.0
"""Seconds over which the load ratio is an average (its time constant)."""

log = get_logger(__name__)


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
class Place:
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
    ) -> None:
        self.recognizer = recognizer
        self.name = name
        self.ready = trio.Event()
        self.draining = trio.Event()
        self._model = model
        limit = max_streams or recognizer.max_streams
        self._scheduler = Scheduler(recognizer.chunk, limit, max_batch=limit)
        self._links: dict[Stream, trio.MemorySendChannel[FromEngine]] = {}
        self._wake = trio.Event()
        self._stale: list[State] = []
        self._steps = 0
        self._last_step_seconds = 0.0
        self._busy = Load(LOAD_MEMORY)
        self._meter = metrics.engine_meter(name)
        metrics.watch_engine(
            name,
            EngineReadings(
                streams=lambda: self._scheduler.in_use,
                capacity=lambda: limit,
                load=lambda: self._busy.ratio(trio.current_time()),
                queue_age=lambda: self._queue().oldest_wait,
                backlog=lambda: self._queue().backlog / SAMPLE_RATE,
            ),
        )
        metrics.watch_device(name, reserved_bytes)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Started means ready. Raises what the model thread raised."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._model.run)
            await self._model.call(self.recognizer.warm_up)
            self.ready.set()
            log.info("Ready to serve!", model=self.recognizer.name, engine=self.name)
            task_status.started()
            await self._step_forever(self._model)

    @contextmanager
    def reserve(self) -> Iterator[Place]:
        """Room for one ``open_stream`` inside the block, promised before the stream is known.
        Raises EngineUnavailable before ready and while draining, EngineBusy when full."""
        if not self.ready.is_set() or self.draining.is_set():
            raise EngineUnavailable(f"engine {self.recognizer.name} is not accepting streams")
        if not self._scheduler.reserve():
            raise EngineBusy(f"engine {self.recognizer.name} has no free slot")
        place = Place()
        try:
            yield place
        finally:
            if not place.taken:
                self._scheduler.give_back()

    @asynccontextmanager
    async def open_stream(self, opening: Open) -> AsyncIterator["LocalStream"]:
        """Raises as ``reserve``."""
        with self.reserve() as place:
            async with self.open_reserved(opening, place) as stream:
                yield stream

    @asynccontextmanager
    async def open_reserved(self, opening: Open, place: Place) -> AsyncIterator["LocalStream"]:
        """A stream in a place of this host."""
        assert not place.taken, "a place is for one stream"
        place.taken = True
        stream = self._scheduler.admit_reserved(opening)
        send, receive = trio.open_memory_channel[FromEngine](MAX_UNREAD)
        self._links[stream] = send
        if self.draining.is_set():
            self._deliver(stream, Draining())  # it was on its way in when the others were told
        try:
            async with receive:
                yield LocalStream(self, stream, receive)
        finally:
            self._forget(stream)

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
        """Raises LinkFault if the message breaks the rules, EngineLost if the stream has ended."""
        if not self._scheduler.is_current(stream):
            raise EngineLost("the stream has ended")
        if self._scheduler.feed(stream, message, trio.current_time()):
            self._wake.set()

    async def _step_forever(self, model: ModelCaller) -> None:
        while True:
            takes = self._scheduler.next_batch()
            if not takes:
                self._wake = trio.Event()
                await self._wake.wait()
                continue
            started = trio.current_time()
            stale, self._stale = self._stale, []
            outcomes = await model.call(self._step, takes, stale)
            now = trio.current_time()
            self._deliver_all(takes, outcomes)
            self._scheduler.complete(takes, now)
            self._steps += 1
            self._last_step_seconds = now - started
            self._busy.worked(now - started, now)
            self.recognizer.worked(now - started, now)
            audio = sum(len(take.audio) for take in takes) / SAMPLE_RATE
            self._meter.step(len(takes), audio, now - started)

    def _step(self, takes: Sequence[Take], stale: Sequence[State]) -> list[Outcome]:
        """In the model thread: free, make and change states as the takes need, then step."""
        recognizer = self.recognizer
        for state in stale:
            recognizer.release(state)
        batch = []
        for take in takes:
            stream = take.stream
            if take.fresh:
                stream.state = recognizer.new_state(
                    take.options, take.start, take.committed, take.committed_at
                )
            elif take.changed:
                recognizer.configure(stream.state, take.options)
            batch.append(Work(stream.state, take.audio, take.final_at))
        return recognizer.step(batch)

    def _deliver_all(self, takes: Sequence[Take], outcomes: Sequence[Outcome]) -> None:
        for take, outcome in zip(takes, outcomes, strict=True):
            stream = take.stream
            state = stream.state
            if not self._scheduler.is_current(stream):
                self._stale.append(state)  # it left while its batch was running
                continue
            for message in stream.deliver(take, outcome):
                self._deliver(stream, message)
            if stream.state is None or not self._scheduler.is_current(stream):
                self._stale.append(state)

    def _deliver(self, stream: Stream, message: FromEngine) -> None:
        try:
            self._links[stream].send_nowait(message)
        except trio.WouldBlock:
            log.warning("stream reads no results, dropped", session=stream.session_id)
            self._forget(stream)
        except (KeyError, trio.BrokenResourceError):
            pass  # the link has just gone; its own task releases the stream

    def _forget(self, stream: Stream) -> None:
        link = self._links.pop(stream, None)
        if link is None:
            return
        link.close()
        in_batch = self._scheduler.is_in_batch(stream)
        self._scheduler.release(stream)
        if stream.state is not None and not in_batch:
            self._stale.append(stream.state)


@frozen(eq=False)
class LocalStream:
    """A stream whose session lives in the same process."""

    host: EngineHost
    stream: Stream
    results: trio.MemoryReceiveChannel[FromEngine]

    @property
    def opened(self) -> Opened:
        return Opened(self.host.recognizer.name, self.host.recognizer.chunk, self.host.name)

    async def send(self, message: ToEngine) -> None:
        self.host.feed(self.stream, message)
        await trio.lowlevel.checkpoint()

    def offer(self, message: ToEngine) -> bool:
        try:
            self.host.feed(self.stream, message)
        except EngineLost:
            return False
        return True

    def tell(self, taker: object) -> None:
        """Answers come a batch at a time, all streams' together, and the next step must not wait
        until every session has dealt with its own."""

    async def receive(self) -> FromEngine:
        try:
            return await self.results.receive()
        except trio.EndOfChannel:
            raise EngineLost("the engine has ended the stream") from None
