"""Which streams go into the next batch, and how many streams an engine takes.

Theory of operation. The engine has one model and steps it again as soon as a step is done. A step
takes every stream that has a whole chunk waiting or must be finalized, up to the batch limit; it
never waits to fill a batch. When more streams are ready than fit, finals go first, because a
session waits for the end of a turn, and then the streams that have waited longest. Those left over
come first in the next step. A stream that is behind gets several chunks in one step, so under
overload the step interval grows for all streams alike and no audio is dropped. Files
(``StreamOptions.offline``) come after all live streams.

While a step runs, the inputs of the next one are cut ahead of time, a few dozen streams at a time
as their audio comes in, so that ``next_batch`` only has to collect them. A stream's next input
depends on the running step only if that ends its segment; such a stream waits for ``complete``. If
more audio or a Finalize has come since an input was cut, it is cut again, but only in
``next_batch``: not once for each message of a stream that is catching up.

Admission is a count: a stream beyond ``max_streams`` is refused before any work is done for it, so
running streams do not suffer. A place may be reserved before the stream is opened, and counts as
taken from then on. When a stream is released while its slot is in a batch, the result is dropped,
because the generation in the ``StreamId`` is then an old one.

Pure: no I/O and no clock, ``now`` is an argument.
"""

from collections.abc import Sequence

from attrs import define, field

from ssasr.engine.recognizer import MANY_CHUNKS, Outcome, State
from ssasr.engine.streams import BLOCK, SampleArray, StepInput, Stream, StreamId, prepare
from ssasr.protocol.recognition import Open, ToEngine


@define(eq=False)
class Scheduler:
    """``max_batch`` and ``max_chunks`` bound one step, and ``steps_at_once`` share the streams (see
    ``Recognizer``); ``max_streams`` bounds the streams admitted."""

    chunk: int
    max_streams: int
    max_batch: int
    max_chunks: int = MANY_CHUNKS
    hop: int = 0
    """Samples between the windows in which speakers are looked for; 0: the engine does not."""
    steps_at_once: int = 1
    _streams: dict[int, Stream] = field(factory=dict)
    """By slot."""
    _ready: dict[int, Stream] = field(factory=dict)
    """Streams with work, by slot; they may also be in the running batch."""
    _unprepared: list[Stream] = field(factory=list)
    """The newest of those, until there are enough to cut their inputs together."""
    _array: SampleArray = field(factory=lambda: SampleArray(0))
    """For the inputs of the next batch."""
    _free: list[int] = field(factory=list)
    _next_slot: int = 0
    _generation: int = 0
    _reserved: int = 0
    _stepping: int = 0
    """Inputs in running steps."""

    @property
    def in_use(self) -> int:
        """Places taken by streams and by reservations."""
        return len(self._streams) + self._reserved

    def reserve(self) -> bool:
        """Reserve a place, for ``admit_reserved`` or ``release_place``; False if there is none."""
        if self.in_use >= self.max_streams:
            return False
        self._reserved += 1
        return True

    def release_place(self) -> None:
        """Give a reserved place back."""
        self._reserved -= 1

    def admit_reserved(self, opening: Open) -> Stream:
        """A new stream in a place that was reserved."""
        self._reserved -= 1
        if self._free:
            slot = self._free.pop()
        else:
            slot = self._next_slot
            self._next_slot += 1
        self._generation += 1
        stream = Stream(
            StreamId(slot, self._generation), opening, self.chunk, self.max_chunks, self.hop
        )
        self._streams[slot] = stream
        return stream

    def release(self, stream: Stream) -> None:
        """Forget the stream. The caller releases its state, if it has one."""
        slot = stream.id.slot
        if self._streams.get(slot) is not stream:
            return
        del self._streams[slot]
        self._ready.pop(slot, None)
        self._free.append(slot)

    def is_current(self, stream: Stream) -> bool:
        return self._streams.get(stream.id.slot) is stream

    def is_in_batch(self, stream: Stream) -> bool:
        return stream.in_batch and self.is_current(stream)

    def feed(self, stream: Stream, message: ToEngine, now: float) -> bool:
        """Hand a message to its stream; True if there is now work for the model."""
        stream.receive(message)
        if stream.ready:
            self._note(stream, now)
        return self.has_work

    @property
    def has_work(self) -> bool:
        """Whether a stream is ready; ``next_batch`` waits for those that are in a step."""
        return bool(self._ready)

    def next_batch(self) -> list[StepInput]:
        """The inputs of the next step, of streams that are in none. Empty if none of those is
        ready. Of all streams with work, a step gets its share: else one that began with few would
        be with few again when the other is done with many."""
        chosen = [stream for stream in self._ready.values() if not stream.in_batch]
        share = -(-(len(chosen) + self._stepping) // self.steps_at_once)
        most = min(self.max_batch, share)
        if len(chosen) > most:
            chosen.sort(key=_urgency)
            del chosen[most:]
        if len(chosen) < len(self._ready):
            for stream in chosen:
                del self._ready[stream.id.slot]
        else:
            self._ready = {}
        self._unprepared.clear()
        prepare([stream for stream in chosen if stream.next_input is None], self._array)
        step_inputs = []
        for stream in chosen:
            assert not stream.in_batch, "no stream is twice in a batch"
            stream.in_batch = True
            stream.ready_since = None
            step_inputs.append(stream.take())
        self._array = SampleArray(len(step_inputs) * self.chunk)
        self._stepping += len(step_inputs)
        return step_inputs

    def complete(
        self, step_inputs: Sequence[StepInput], outcomes: Sequence[Outcome], now: float
    ) -> list[State]:
        """Move the streams of a batch on. Returns the states to release: those of segments that
        have ended, and of streams that left while the batch ran."""
        spent: list[State] = []
        self._stepping -= len(step_inputs)
        for share, outcome in zip(step_inputs, outcomes, strict=True):
            stream = share.stream
            stream.in_batch = False
            if not self.is_current(stream):
                spent.append(stream.state)
            elif share.final_at is not None or outcome.unfinished or share.more:
                spent += stream.settle(share, outcome)
                if stream.ready:
                    self._note(stream, now)
        return spent

    @property
    def backlog(self) -> int:
        """Samples waiting over all streams."""
        return sum(stream.backlog for stream in self._streams.values())

    def longest_wait(self, now: float) -> float:
        """Seconds that the longest waiting stream has been ready."""
        since = [s.ready_since for s in self._ready.values() if s.ready_since is not None]
        return now - min(since) if since else 0.0

    def check_integrity(self) -> None:
        """Assert what must hold between any two calls."""
        for slot, stream in self._streams.items():
            assert stream.id.slot == slot, "a slot holds the stream that names it"
            waiting = self._ready.get(slot) is stream
            assert waiting or not stream.ready, "a ready stream is not forgotten"
        assert set(self._ready) <= set(self._streams), "no stream waits that has left"
        assert not set(self._free) & set(self._streams), "a free slot is free"
        assert self._reserved >= 0, "a place is given back once"
        assert self.in_use <= self.max_streams, "admission is bounded"

    def _note(self, stream: Stream, now: float) -> None:
        if stream.ready_since is None:
            stream.ready_since = now
            self._unprepared.append(stream)
            if len(self._unprepared) == BLOCK:
                prepare(self._unprepared, self._array)
                self._unprepared.clear()
        self._ready[stream.id.slot] = stream


def _urgency(stream: Stream) -> tuple[bool, bool, float]:
    """Sort key: live streams first, then finals, then by waiting time."""
    return stream.options.offline, not stream.urgent, stream.ready_since or 0.0
