"""Which streams go into the next batch, and who may join.

Theory of operation. The engine has one model and steps it as fast as it returns: a step takes every
stream that has a whole chunk waiting (or must be finalized), up to the batch limit, and nothing is
ever held back to fill a batch. When more streams are ready than fit, finals go first, because
somebody waits for the end of a turn; then the stream whose oldest unseen audio arrived first. A
stream that falls behind gets several chunks in one step, so under overload the step interval
stretches for all evenly and no audio is dropped.

Admission is a count: a stream beyond ``max_streams`` is refused before any work is done for it, so
running streams never pay for a new one. A place may be reserved before the stream has said what it
is, and counts as taken from then on. A released slot may be in a batch at that moment; its result
is dropped, because the generation in the ``StreamId`` has moved on.

Pure: no I/O and no clock, ``now`` is an argument.
"""

from attrs import define, field, frozen

from ssasr.engine.streams import Stream, StreamId, Take
from ssasr.protocol.recognition import Open, ToEngine


@frozen
class SchedulerStatistics:
    streams: int
    reserved: int
    """Places promised to streams that have not opened yet."""
    max_streams: int
    ready: int
    backlog: int
    """Samples waiting over all streams."""
    oldest_wait: float
    """Seconds that the longest waiting stream has been ready."""
    refused: int


@define(eq=False)
class _Entry:
    stream: Stream
    ready_since: float | None = None
    in_batch: bool = False


@define(eq=False)
class Scheduler:
    """``max_batch`` bounds one step, ``max_streams`` the streams admitted."""

    chunk: int
    max_streams: int
    max_batch: int
    _entries: dict[int, _Entry] = field(factory=dict)
    _ready: dict[int, _Entry] = field(factory=dict)
    """Slots with work that are not in the running batch."""
    _free: list[int] = field(factory=list)
    _next_slot: int = 0
    _generation: int = 0
    _refused: int = 0
    _reserved: int = 0

    @property
    def in_use(self) -> int:
        """Places taken, by streams or by promise."""
        return len(self._entries) + self._reserved

    def reserve(self) -> bool:
        """Hold a place for ``admit_reserved``, or for ``give_back``; False when there is no
        room."""
        if self.in_use >= self.max_streams:
            self._refused += 1
            return False
        self._reserved += 1
        return True

    def give_back(self) -> None:
        """The stream that a place was reserved for does not come."""
        self._reserved -= 1

    def admit(self, opening: Open) -> Stream | None:
        """A new stream, or None when there is no room."""
        return self.admit_reserved(opening) if self.reserve() else None

    def admit_reserved(self, opening: Open) -> Stream:
        """A new stream in a place that was reserved."""
        self._reserved -= 1
        if self._free:
            slot = self._free.pop()
        else:
            slot = self._next_slot
            self._next_slot += 1
        self._generation += 1
        stream = Stream(StreamId(slot, self._generation), opening, self.chunk)
        self._entries[slot] = _Entry(stream)
        return stream

    def release(self, stream: Stream) -> None:
        """Forget the stream. Its state, if any, is the caller's to free."""
        slot = stream.id.slot
        entry = self._entries.get(slot)
        if entry is None or entry.stream is not stream:
            return
        del self._entries[slot]
        self._ready.pop(slot, None)
        self._free.append(slot)

    def is_current(self, stream: Stream) -> bool:
        entry = self._entries.get(stream.id.slot)
        return entry is not None and entry.stream is stream

    def is_in_batch(self, stream: Stream) -> bool:
        return self.is_current(stream) and self._entries[stream.id.slot].in_batch

    def feed(self, stream: Stream, message: ToEngine, now: float) -> bool:
        """Hand a message to its stream; True if there is now work for the model."""
        entry = self._entries[stream.id.slot]
        stream.receive(message)
        self._note(entry, now)
        return bool(self._ready)

    def next_batch(self) -> list[Take]:
        """What the model does next; empty when nothing is ready."""
        ready = list(self._ready.values())
        if len(ready) > self.max_batch:
            ready.sort(key=_urgency)
            del ready[self.max_batch :]
        takes = []
        for entry in ready:
            del self._ready[entry.stream.id.slot]
            entry.in_batch = True
            entry.ready_since = None
            takes.append(entry.stream.take())
        return takes

    def complete(self, takes: list[Take], now: float) -> None:
        """The batch is done and its outcomes are delivered to the streams."""
        for take in takes:
            if self.is_current(take.stream):
                entry = self._entries[take.stream.id.slot]
                entry.in_batch = False
                self._note(entry, now)

    def statistics(self, now: float) -> SchedulerStatistics:
        since = [e.ready_since for e in self._ready.values() if e.ready_since is not None]
        return SchedulerStatistics(
            streams=len(self._entries),
            reserved=self._reserved,
            max_streams=self.max_streams,
            ready=len(self._ready),
            backlog=sum(e.stream.backlog for e in self._entries.values()),
            oldest_wait=now - min(since) if since else 0.0,
            refused=self._refused,
        )

    def check_integrity(self) -> None:
        """Assert what must hold between any two calls."""
        for slot, entry in self._entries.items():
            assert entry.stream.id.slot == slot, "a slot holds the stream that names it"
            waiting = slot in self._ready
            assert not (waiting and entry.in_batch), "no stream is twice in a batch"
            assert entry.in_batch or waiting == entry.stream.ready, (
                "a ready stream is not forgotten"
            )
        assert not set(self._free) & set(self._entries), "a free slot is free"
        assert self._reserved >= 0, "a place is given back once"
        assert self.in_use <= self.max_streams, "admission is bounded"

    def _note(self, entry: _Entry, now: float) -> None:
        if not entry.in_batch and entry.stream.ready:
            if entry.ready_since is None:
                entry.ready_since = now
            self._ready[entry.stream.id.slot] = entry


def _urgency(entry: _Entry) -> tuple[bool, float]:
    return (not entry.stream.urgent, entry.ready_since or 0.0)
