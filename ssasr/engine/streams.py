"""One stream inside an engine: its audio, its segments, its place in the model's time.

Pure: no I/O, no clock, no torch. The link feeds it, the scheduler takes work from it, and the
outcome of that work comes back as messages for the session.
"""

from collections import deque

import numpy as np
from attrs import frozen

from ssasr.engine.recognizer import Outcome, State
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
)

KEPT_BEHIND = 30 * SAMPLE_RATE
"""A ``Finalize`` may lie this far behind the newest step. The session never lets more audio than a
few seconds be under way, so this is generous."""

MAX_BACKLOG = 120 * SAMPLE_RATE
"""More audio than this ahead of the model is a session that ignores acknowledgements."""

MAX_CHUNKS = 64
"""Chunks of one stream in one step, so that one stream far behind does not hold up the others."""

_SCALE = np.float32(1 / 32_768)


class LinkFault(SsasrError):
    """The session broke the rules of the engine link; its stream ends."""


@frozen
class StreamId:
    """Names a stream for ever: a slot is reused, a pair of slot and generation is not."""

    slot: int
    generation: int


@frozen
class Take:
    """One stream's share of a batch, cut out of its buffer. ``fresh``: the segment has no state
    yet, make one at ``start``. ``changed``: ``options`` are news to its state."""

    stream: "Stream"
    segment: int
    start: int
    audio: np.ndarray[tuple[int], np.dtype[np.float32]]
    final_at: int | None
    options: StreamOptions
    committed: tuple[Word, ...]
    committed_at: int
    fresh: bool
    changed: bool


class Stream:
    """Not thread-safe and need not be; the model thread sees only ``Take`` and ``state``."""

    def __init__(self, stream_id: StreamId, opening: Open, chunk: int) -> None:
        self.id = stream_id
        self.options: StreamOptions = opening.options
        self.session_id = opening.session_id
        self.segment = opening.segment
        self.segment_start = opening.start
        self.committed = opening.committed
        self.committed_at = opening.committed_at
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
        self._chunk = chunk
        self._kept = bytearray()
        self._kept_from = opening.start
        self._finals: deque[int] = deque()

    def receive(self, message: ToEngine) -> None:
        """Take in one message of the session. Raises LinkFault if it breaks the rules."""
        match message:
            case Audio(start, pcm):
                if start != self.received or len(pcm) % 2:
                    raise LinkFault(f"audio at sample {start}, expected {self.received}")
                self._kept += pcm
                self.received += len(pcm) // 2
                if self.received - self.position > MAX_BACKLOG:
                    raise LinkFault("more audio in flight than the link allows")
            case Finalize(segment, at):
                earliest = max(self.segment_start, self._kept_from)
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
        return bool(self._finals) or self.unfinished or self.backlog >= self._chunk

    @property
    def urgent(self) -> bool:
        """Somebody waits for the last words of a turn."""
        return bool(self._finals)

    def take(self) -> Take:
        """Cut the next work out of the buffer. Whole chunks on the segment's grid, and the rest of
        the segment if it is being finalized and everything fits."""
        final_at = self._finals[0] if self._finals else None
        end = self.received if final_at is None else final_at
        chunks = min(max(0, end - self.position) // self._chunk, MAX_CHUNKS)
        first = self.position + self._chunk if chunks else max(final_at or 0, self.position)
        options, until = self._options_at(first)
        if chunks and until is not None:
            chunks = min(chunks, (until - self.position) // self._chunk)
        upto = self.position + chunks * self._chunk
        whole = until is None or final_at is None or final_at <= until
        if final_at is not None and final_at - upto < self._chunk and whole:
            upto = max(final_at, self.position)
        else:
            final_at = None
        audio = self._audio(self.position, upto)
        changed, self._applied = self._applied is not options, options
        self.position = upto
        self._trim()
        return Take(
            self, self.segment, self.segment_start, audio, final_at,
            options, self.committed, self.committed_at, self.state is None, changed,
        )  # fmt: skip

    def deliver(self, take: Take, result: Outcome) -> list[Update | Final]:
        """Turn what the model found into messages; begin the next segment after a final."""
        self.unfinished = result.unfinished
        final = take.final_at is not None and not result.unfinished
        heard = result.heard[:-1] if final else result.heard
        messages: list[Update | Final] = [
            Update(
                take.segment, h.position, h.speech, h.words, h.decoded,
                h.end_of_turn_confidence, h.language, h.language_confidence,
            )
            for h in heard
        ]  # fmt: skip
        if final:
            last = result.heard[-1]
            at = self._finals.popleft()
            messages.append(
                Final(
                    take.segment, at, last.words,
                    last.end_of_turn_confidence, last.language, last.language_confidence,
                )
            )  # fmt: skip
            self._begin_segment(at)
        return messages

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

    def _audio(self, start: int, end: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """float32 (end - start,) in [-1, 1)."""
        first = start - self._kept_from
        assert first >= 0, "the audio asked for has been let go"
        pcm = np.frombuffer(self._kept, dtype="<i2", count=end - start, offset=2 * first)
        audio: np.ndarray[tuple[int], np.dtype[np.float32]] = pcm * _SCALE
        return audio

    def _trim(self) -> None:
        keep_from = max(self.segment_start, self.position - KEPT_BEHIND)
        while self._changes and self._changes[0][0] <= keep_from:
            self.options = self._changes.pop(0)[1]
        # In big bites, since each one moves what is left.
        if keep_from - self._kept_from > SAMPLE_RATE:
            del self._kept[: 2 * (keep_from - self._kept_from)]
            self._kept_from = keep_from
