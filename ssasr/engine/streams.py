"""One stream inside an engine: its audio, its segments, its place in the model's time.

Pure: no I/O, no clock, no torch. The link feeds it, the scheduler takes work from it, and the
outcome of that work comes back as messages for the session.
"""

from collections import deque
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from attrs import define, frozen
from numpy.typing import NDArray

from ssasr.engine.recognizer import Outcome, State
from ssasr.engine.tape import BITE, Tape
from ssasr.errors import SsasrError
from ssasr.protocol.recognition import (
    SAMPLE_RATE,
    Audio,
    Configure,
    Final,
    Finalize,
    Open,
    StreamOptions,
    ToEngine,
    Update,
    Word,
    language_after,
)

KEPT_BEHIND = 30 * SAMPLE_RATE
"""A ``Finalize`` may lie this far behind the newest step. The session never lets more audio than a
few seconds be under way, so this is generous."""

MAX_BACKLOG = 120 * SAMPLE_RATE
"""More audio than this ahead of the model is a session that ignores acknowledgements."""

MAX_CHUNKS = 64
"""Chunks of one stream in one step, so that one stream far behind does not hold up the others."""

_SCALE = np.float32(1 / 32_768)
_BLOCK = 32
"""Streams whose audio is converted at a time: little enough to stay in the processor's cache."""


class LinkFault(SsasrError):
    """The session broke the rules of the engine link; its stream ends."""


@frozen
class StreamId:
    """Names a stream for ever: a slot is reused, a pair of slot and generation is not."""

    slot: int
    generation: int


@define(eq=False)
class Take:
    """One stream's share of a batch, cut out of its buffer; nobody changes it, but ``frozen`` would
    make it three times as dear to make. ``fresh``: the segment has no state yet, make one at
    ``start``. ``changed``: ``options`` are news to its state."""

    stream: "Stream"
    segment: int
    start: int
    pcm: list[bytes]
    """Pieces of little-endian signed 16-bit; ``audio_of`` makes audio of a whole batch at once."""
    samples: int
    final_at: int | None
    options: StreamOptions
    committed: tuple[Word, ...]
    committed_at: int
    language_before: str | None
    fresh: bool
    changed: bool


def audio_of(takes: Sequence[Take]) -> list[NDArray[np.float32]]:
    """The audio of each, float32 in [-1, 1): views of one array."""
    sizes = [take.samples for take in takes]
    audio, end = np.empty(sum(sizes), np.float32), 0
    for first in range(0, len(takes), _BLOCK):
        pcm = b"".join([part for take in takes[first : first + _BLOCK] for part in take.pcm])
        begin, end = end, end + len(pcm) // 2
        audio[begin:end] = np.frombuffer(pcm, dtype="<i2")
        audio[begin:end] *= _SCALE
    if sizes.count(sizes[0]) == len(sizes) and sizes[0]:
        return list(audio.reshape(len(sizes), -1))
    ends = accumulate(sizes)
    return [audio[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def answers(take: Take, outcome: Outcome) -> list[Update | Final]:
    """What the model found, as messages for the session."""
    final = take.final_at is not None and not outcome.unfinished
    heard = outcome.heard[:-1] if final else outcome.heard
    messages: list[Update | Final] = [
        Update(
            take.segment, h.position, h.speech, h.words, h.decoded,
            h.end_of_turn_confidence, h.language, h.language_confidence,
        )
        for h in heard
    ]  # fmt: skip
    if final:
        assert take.final_at is not None, "see above"
        last = outcome.heard[-1]
        messages.append(
            Final(
                take.segment, take.final_at, last.words,
                last.end_of_turn_confidence, last.language, last.language_confidence,
            )
        )  # fmt: skip
    return messages


class Stream:
    """Not thread-safe and need not be; the model thread sees only ``Take`` and ``state``."""

    __slots__ = (
        "_applied", "_changes", "_chunk", "_finals", "_tape", "committed", "committed_at", "id",
        "in_batch", "language_before", "options", "position", "ready_since", "received", "segment",
        "segment_start", "session_id", "state", "unfinished",
    )  # fmt: skip

    def __init__(self, stream_id: StreamId, opening: Open, chunk: int) -> None:
        self.id = stream_id
        self.options: StreamOptions = opening.options
        self.session_id = opening.session_id
        self.segment = opening.segment
        self.segment_start = opening.start
        self.committed = opening.committed
        self.committed_at = opening.committed_at
        self.language_before = opening.language_before
        self.position = opening.start
        """The model has seen everything before this sample."""
        self.received = opening.start
        self.state: State | None = None
        self._changes: list[tuple[int, StreamOptions]] = []
        """Options that came after ``self.options``, with the audio received before each. They hold
        from the first step that hears later audio, however late that step is done: a stream that is
        replayed to another engine must be heard in the same way. They are kept while the segment
        may still be ended behind them."""
        self._applied: StreamOptions | None = None
        """What the state was last told."""
        self.unfinished = False
        self.in_batch = False
        self.ready_since: float | None = None
        """Since when there is something to do for the model and it is not being done. This and
        ``in_batch`` are the scheduler's notes."""
        self._chunk = chunk
        self._tape = Tape(opening.start)
        self._finals: deque[int] = deque()

    def receive(self, message: ToEngine) -> None:
        """Take in one message of the session. Raises LinkFault if it breaks the rules."""
        match message:
            case Audio():
                pcm = message.pcm
                if message.start != self.received or len(pcm) % 2:
                    raise LinkFault(f"audio at sample {message.start}, expected {self.received}")
                if pcm:
                    self._tape.append(pcm)
                    self.received = self._tape.end
                if self.received - self.position > MAX_BACKLOG:
                    raise LinkFault("more audio in flight than the link allows")
            case Finalize(segment, at):
                earliest = max(self.segment_start, self._tape.kept_from)
                if segment != self.segment or self._finals or not earliest <= at <= self.received:
                    raise LinkFault(f"cannot finalize segment {segment} at sample {at}")
                self._finals.append(at)
            case Configure(options):
                self._changes.append((self.received, options))

    @property
    def backlog(self) -> int:
        """Samples received and not yet looked at."""
        return max(0, self.received - self.position)

    @property
    def ready(self) -> bool:
        """There is something to do for the model."""
        return self.received - self.position >= self._chunk or bool(self._finals) or self.unfinished

    @property
    def urgent(self) -> bool:
        """Somebody waits for the last words of a turn."""
        return bool(self._finals)

    def take(self) -> Take:
        """Cut the next work out of the buffer. Whole chunks on the segment's grid, and the rest of
        the segment if it is being finalized and everything fits."""
        if self._finals or self._changes:
            return self._take_with_care()
        chunk, first = self._chunk, self.position
        samples = self.received - first
        if not chunk <= samples < 2 * chunk:  # nearly always it is one chunk
            samples = min(samples // chunk, MAX_CHUNKS) * chunk
        else:
            samples = chunk
        return self._cut(first + samples, None, self.options)

    def _take_with_care(self) -> Take:
        """``take`` where the segment ends or new options come."""
        first = self.position
        final_at = self._finals[0] if self._finals else None
        end = self.received if final_at is None else final_at
        chunks = min(max(0, end - first) // self._chunk, MAX_CHUNKS)
        soonest = first + self._chunk if chunks else max(final_at or 0, first)
        options, until = self._options_at(soonest)
        if chunks and until is not None:
            chunks = min(chunks, (until - first) // self._chunk)
        upto = first + chunks * self._chunk
        whole = until is None or final_at is None or final_at <= until
        if final_at is not None and final_at - upto < self._chunk and whole:
            upto = max(final_at, first)
        else:
            final_at = None
        return self._cut(upto, final_at, options)

    def _cut(self, upto: int, final_at: int | None, options: StreamOptions) -> Take:
        """Move on to ``upto``."""
        first, tape = self.position, self._tape
        pcm = tape.cut(first, upto)
        changed, self._applied = self._applied is not options, options
        self.position = upto
        if self._changes or upto - tape.kept_from > KEPT_BEHIND + BITE:
            self._trim()
        return Take(
            self, self.segment, self.segment_start, pcm, upto - first, final_at,
            options, self.committed, self.committed_at, self.language_before,
            self.state is None, changed,
        )  # fmt: skip

    def settle(self, take: Take, outcome: Outcome) -> Sequence[State]:
        """Go on from what the model found, where that is not simply the next chunk: there is more
        to do, or the segment has ended. Gives the states that are not needed any more."""
        self.unfinished = outcome.unfinished
        if take.final_at is None or outcome.unfinished:
            return ()
        state, last = self.state, outcome.heard[-1]
        self.language_before = language_after(
            self.language_before, last.words, last.language, last.language_confidence
        )
        self._begin_segment(self._finals.popleft())
        return (state,)

    def _options_at(self, end: int) -> tuple[StreamOptions, int | None]:
        """What holds for a step that ends at ``end``, and where the last such step ends."""
        options = self.options
        for position, changed in self._changes:
            if position >= end:
                return options, position
            options = changed
        return options, None

    def _begin_segment(self, at: int) -> None:
        self.segment += 1
        self.segment_start = self.position = at
        self.committed, self.committed_at = (), 0
        self.state = None
        self._trim()

    def _trim(self) -> None:
        keep_from = max(self.segment_start, self.position - KEPT_BEHIND)
        while self._changes and self._changes[0][0] <= keep_from:
            self.options = self._changes.pop(0)[1]
        self._tape.let_go(keep_from)
