"""One stream inside an engine: its audio, its segments, and how far the model has processed it.

The link feeds it, the scheduler takes its share of the next batch from it (``StepInput``), and the
outcome of the step becomes messages for the session (``answers``). Pure: no I/O, no clock, no
torch.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np
from attrs import define, frozen
from numpy.typing import NDArray

from ssasr.engine.pcm_buffer import DISCARD_STEP, PcmBuffer
from ssasr.engine.recognizer import MANY_CHUNKS, Outcome, SegmentStart, State
from ssasr.engine.speakers.windows import Window, WindowPlan
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
    language_after,
)
from ssasr.protocol.voices import CONTEXT, Voices

KEPT_BEHIND = 30 * SAMPLE_RATE
"""Samples: a ``Finalize`` may lie this far behind the newest step. A session sends only a few
seconds of audio ahead of the acknowledgements, so this is more than enough."""

MAX_BACKLOG = 120 * SAMPLE_RATE
"""Samples: a session that sends more than this ahead of the model ignores the acknowledgements."""

BLOCK = 32
"""Streams whose audio is converted at a time: few enough to stay in the processor's cache."""

Samples = NDArray[np.float32]
NOTHING: Samples = np.empty(0, np.float32)
_SCALE = np.float32(1 / 32_768)


class LinkFault(SsasrError):
    """The session broke the rules of the engine link; its stream ends."""


@frozen
class StreamId:
    """A stream's unique name: a slot is used again, a pair of slot and generation is not."""

    slot: int
    generation: int


@define(eq=False)
class StepInput:
    """One stream's share of a batch. Not changed after it is cut, except ``audio`` and ``voices``;
    ``frozen`` would make creating it three times as expensive.

    ``fresh``: the segment has no state yet; create one at ``start``. ``changed``: its state does
    not have ``options`` yet. ``more``: the stream had more to do than fits into a step."""

    stream: "Stream"
    segment: int
    start: SegmentStart
    upto: int
    """After the step, the model has processed everything before this sample."""
    samples: int
    final_at: int | None
    options: StreamOptions
    fresh: bool
    changed: bool
    more: bool
    audio: Samples = NOTHING
    """float32 in [-1, 1)."""
    windows: tuple[Window, ...] = ()
    """Windows in which speakers are to be found; the results come into ``voices``."""
    voices: Sequence[Voices] = ()


class SampleArray:
    """Memory for the audio of one step, allocated in one piece. Many small arrays would be returned
    to the system after every step, and cost a page fault for each 4 KiB when allocated again."""

    def __init__(self, samples: int) -> None:
        self._blank: Samples = np.empty(samples, np.float32)

    def room(self, samples: int) -> Samples:
        """The next ``samples`` of the array, or a new array if that many are not left."""
        if samples > len(self._blank):
            return np.empty(samples, np.float32)
        room, self._blank = self._blank[:samples], self._blank[samples:]
        return room


def prepare(streams: Sequence["Stream"], array: SampleArray) -> None:
    """Cut the next input of each stream, with its audio as float32. For a few dozen streams or more
    this costs a third per stream of what it costs for one alone."""
    for first in range(0, len(streams), BLOCK):
        pieces: list[bytes] = []
        step_inputs = [stream.prepare(pieces) for stream in streams[first : first + BLOCK]]
        pcm = np.frombuffer(b"".join(pieces), dtype="<i2")
        audio = array.room(len(pcm))
        audio[:] = pcm
        audio *= _SCALE
        end = 0
        for share in step_inputs:
            begin, end = end, end + share.samples
            share.audio = audio[begin:end]


def answers(share: StepInput, outcome: Outcome) -> list[Update | Final]:
    """What the model found, as messages for the session."""
    plan = share.stream.plan
    if plan is not None:  # here, since answers are made in order, and perhaps after the next step
        plan.found(share.segment, share.voices)
    final = share.final_at is not None and not outcome.unfinished
    results = outcome.results[:-1] if final else outcome.results
    messages: list[Update | Final] = [
        Update(
            share.segment, h.position, h.speech, h.words, h.decoded,
            h.end_of_turn_confidence, h.language, h.language_confidence,
            plan.for_answer(share.segment, h.position, final=False) if plan else (),
        )
        for h in results
    ]  # fmt: skip
    if final:
        assert share.final_at is not None, "see above"
        last = outcome.results[-1]
        messages.append(
            Final(
                share.segment, share.final_at, last.words,
                last.end_of_turn_confidence, last.language, last.language_confidence,
                plan.for_answer(share.segment, share.final_at, final=True) if plan else (),
            )
        )  # fmt: skip
    return messages


class Stream:
    """Used only in the event loop's thread; the model thread sees ``StepInput`` and ``state``."""

    __slots__ = (
        "_applied", "_changes", "_chunk", "_ending", "_finals", "_kept_behind", "_max_chunks",
        "_pcm", "id", "in_batch", "next_input", "options", "plan", "position", "ready_since",
        "received", "segment", "session_id", "start", "state", "unfinished",
    )  # fmt: skip

    def __init__(
        self,
        stream_id: StreamId,
        opening: Open,
        chunk: int,
        max_chunks: int = MANY_CHUNKS,
        hop: int = 0,
    ) -> None:
        """``hop``: samples between the windows in which the engine looks for speakers; 0: it does
        not."""
        self.id = stream_id
        self.options: StreamOptions = opening.options
        self.session_id = opening.session_id
        self.segment = opening.segment
        self.start = SegmentStart(
            opening.start, opening.committed, opening.committed_at, opening.language_before
        )
        """Of the open segment."""
        self.position = opening.start
        """The model has processed everything before this sample."""
        self.received = opening.start - opening.context
        self.state: State | None = None
        self._changes: list[tuple[int, StreamOptions]] = []
        """Options that came after ``self.options``, each with the position up to which audio had
        been received. They apply from the first step with later audio, however late that step is
        made, so that a replay on another engine gives the same result. They are kept as long as the
        segment may still be ended before them."""
        self._applied: StreamOptions | None = None
        """The options the state has; None before the first step of the segment."""
        self._ending = False
        """The segment ends with the running step, so the next input cannot be cut yet."""
        self.next_input: StepInput | None = None
        """Cut ahead of time; dropped when more can go into it."""
        self.unfinished = False
        self.in_batch = False
        self.ready_since: float | None = None
        """Since when the stream has waited for the model, on the scheduler's clock. This and
        ``in_batch`` are written by the scheduler."""
        self._chunk, self._max_chunks = chunk, max_chunks
        self._pcm = PcmBuffer(self.received)
        asked = opening.options.speakers and hop > 0
        self.plan = WindowPlan(hop, opening.segment, opening.start) if asked else None
        self._kept_behind = KEPT_BEHIND + (CONTEXT if asked else 0)
        self._finals: deque[int] = deque()

    def receive(self, message: ToEngine) -> None:
        """Take in one message of the session, in the order that ``StreamPosition`` has checked.
        Raises LinkFault if it asks for more than an engine keeps."""
        match message:
            case Audio(_, pcm):
                if pcm:
                    self._pcm.append(pcm)
                    self.received = self._pcm.end
                    ahead = self.next_input
                    if ahead is not None and self.received - ahead.upto >= self._chunk:
                        self.next_input = None
                if self.received - self.position > MAX_BACKLOG:
                    raise LinkFault("more audio in flight than the link allows")
            case Finalize(segment, at):
                if at < self._pcm.kept_from:
                    raise LinkFault(f"cannot finalize segment {segment} at sample {at}")
                self._finals.append(at)
                self.next_input = None
            case Configure(options):
                if self._changes and self._changes[-1][0] == self.received:
                    self._changes.pop()  # replaced before there was audio for it
                self._changes.append((self.received, options))

    @property
    def backlog(self) -> int:
        """Samples received and not yet processed."""
        return max(0, self.received - self.position)

    @property
    def ready(self) -> bool:
        """Whether there is work for the model, after the step that is running."""
        if self._ending:
            return False
        return self.received - self.position >= self._chunk or bool(self._finals) or self.unfinished

    @property
    def urgent(self) -> bool:
        """Whether the session waits for the last words of a turn."""
        return bool(self._finals)

    def take(self) -> StepInput:
        """Take the next input and move on: whole chunks on the segment's grid, and the rest of the
        segment if it is being finalized and fits."""
        if self.next_input is None:
            prepare([self], SampleArray(0))
        share, self.next_input = self.next_input, None
        assert share is not None, "it was prepared just now"
        self.position = share.upto
        self._applied = share.options
        self._ending = share.final_at is not None
        self.unfinished = False
        if self.plan is not None:
            share.windows = self.plan.due(
                self._pcm, share.segment, share.start.at, share.upto, share.final_at
            )
        return share

    def prepare(self, pieces: list[bytes]) -> StepInput:
        """Cut the next input without moving on. Its audio is appended to ``pieces``, as
        little-endian signed 16-bit samples, for the caller to convert."""
        chunk, first, buffer, applied = self._chunk, self.position, self._pcm, self._applied
        if self._changes or first - buffer.kept_from > self._kept_behind + DISCARD_STEP:
            self._trim()
        if self._finals or self._changes:
            upto, final_at, options = self._next_with_care()
        else:
            chunks = min((self.received - first) // chunk, self._max_chunks)
            upto, final_at, options = first + chunks * chunk, None, self.options
        pieces += buffer.read(first, upto)
        more = final_at is None and (self.received - upto >= chunk or bool(self._finals))
        share = self.next_input = StepInput(
            self, self.segment, self.start, upto, upto - first, final_at, options,
            applied is None, applied is not options, more,
        )  # fmt: skip
        return share

    def _next_with_care(self) -> tuple[int, int | None, StreamOptions]:
        """Where the next input ends, where the segment ends (or None), and the options; for a
        stream with a Finalize or new options ahead."""
        first = self.position
        final_at = self._finals[0] if self._finals else None
        end = self.received if final_at is None else final_at
        chunks = min(max(0, end - first) // self._chunk, self._max_chunks)
        soonest = first + self._chunk if chunks else max(final_at or 0, first)
        options, until = self._options_at(soonest)
        if chunks and until is not None:
            chunks = min(chunks, (until - first) // self._chunk)
        upto = first + chunks * self._chunk
        whole = until is None or final_at is None or final_at <= until
        if final_at is not None and final_at - upto < self._chunk and whole:
            return max(final_at, first), final_at, options
        return upto, None, options

    def settle(self, share: StepInput, outcome: Outcome) -> Sequence[State]:
        """Move on after a step that left work ``unfinished``, ended the segment, or did not take
        all. Returns the states that are no longer needed."""
        self.unfinished, self._ending = outcome.unfinished, False
        if share.final_at is None or outcome.unfinished:
            return ()
        state, last = self.state, outcome.results[-1]
        language = language_after(
            self.start.language_before, last.words, last.language, last.language_confidence
        )
        self._begin_segment(SegmentStart(self._finals.popleft(), language_before=language))
        return (state,)

    def _options_at(self, end: int) -> tuple[StreamOptions, int | None]:
        """The options for a step that ends at ``end``, and the position up to which they apply
        (None: no others have come)."""
        options = self.options
        for position, changed in self._changes:
            if position >= end:
                return options, position
            options = changed
        return options, None

    def _begin_segment(self, start: SegmentStart) -> None:
        self.segment += 1
        self.start, self.position = start, start.at
        self.state = self._applied = None
        self._trim()

    def _trim(self) -> None:
        keep_from = max(self.start.at, self.position - KEPT_BEHIND)
        while self._changes and self._changes[0][0] <= keep_from:
            self.options = self._changes.pop(0)[1]
        self._pcm.discard_before(keep_from + KEPT_BEHIND - self._kept_behind)
