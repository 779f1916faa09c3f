"""A recogniser without weights: the same audio always gives the same words.

It finds speech where there is energy, and every third of a second of speech is a word, whose
syllables are drawn by a checksum of that very audio. A sample lost, doubled or moved anywhere
therefore changes the words, which is what load and fault tests need; and real speech gives words at
about the rate of speech. What it says at a position is a function of the audio before it, however
that came in and however far it has got meanwhile. A word is tentative while it lasts
and final once it is whole. Every fourth word, by its checksum, is one of the stream's key terms,
where it has any.
"""

from collections import deque
from collections.abc import Sequence
from zlib import crc32

import numpy as np
from attrs import define, field, frozen

from ssasr.engine.capacity import Workload
from ssasr.engine.recognizer import (
    MANY_CHUNKS,
    Outcome,
    Recognizer,
    RecognizerSettings,
    SegmentStart,
    State,
    StepResult,
    Work,
)
from ssasr.protocol.recognition import VAD_FRAME, StreamOptions, Word

CHUNK = 1_600
FRAMES_PER_WORD = 10
SPEECH_LEVEL = 0.01
"""Root mean square above which a frame is speech; about -40 dBFS."""
MOMENTS = 1_024
"""Frames that a segment may be ended behind what was processed: 32 s, as far as a stream keeps
audio."""
SPEECH, SILENCE = 0.97, 0.02
END_PUNCTUATION_CONFIDENCE, OPEN_CONFIDENCE = 0.9, 0.1

_ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "sh", "ch")
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "oo")


@frozen
class _Moment:
    """What was known after a whole number of frames. A segment may be ended behind what was
    processed already, and must then end as if the later audio had never come."""

    whole: int
    """Words that were whole."""
    open_frames: int
    digest: int
    """Checksum of the audio of the open word."""
    silent_frames: int
    keyterms: tuple[str, ...] = ()


@define
class _Segment:
    start: int
    options: StreamOptions
    position: int
    pending: np.ndarray[tuple[int], np.dtype[np.float32]] = field(
        factory=lambda: np.zeros(0, np.float32)
    )
    """Samples after the last whole frame."""
    frames: int = 0
    words: list[Word] = field(factory=list)
    """Whole words; they never change."""
    moments: deque[_Moment] = field(factory=lambda: deque([_Moment(0, 0, 0, 0)], maxlen=MOMENTS))
    """After each frame; the newest last."""

    @property
    def now(self) -> _Moment:
        return self.moments[-1]


class ScriptedRecognizer:
    """See the module. Steps cost microseconds, so hundreds of streams fit on a core."""

    name: str = "scripted"
    chunk: int = CHUNK
    max_chunks = MANY_CHUNKS
    steps_at_once = 1
    workload: Workload | None = None
    translates = False
    languages: tuple[str, ...] = ("en", "es", "de", "fr", "it", "pt")

    def __init__(self, max_streams: int = 1_000) -> None:
        self.max_streams = self.max_batch = max_streams

    def warm_up(self) -> None:
        pass

    def new_state(self, options: StreamOptions, start: SegmentStart) -> State:
        # Replayed audio gives the committed words again, so they need not be kept apart.
        return _Segment(start.at, options.known(self.languages), start.at)

    def configure(self, state: State, options: StreamOptions) -> None:
        assert isinstance(state, _Segment), "a state made by this recogniser"
        state.options = options.known(self.languages)

    def release(self, state: State) -> None:
        pass

    def step(self, batch: Sequence[Work]) -> list[Outcome]:
        return [self._advance(work) for work in batch]

    def worked(self, seconds: float, now: float) -> None:
        pass

    def _advance(self, work: Work) -> Outcome:
        segment = work.state
        assert isinstance(segment, _Segment), "a state made by this recogniser"
        results = []
        for first in range(0, len(work.audio), CHUNK):
            audio = work.audio[first : first + CHUNK]
            speech = _detect_speech(segment, audio)
            results.append(_report(segment, segment.position, speech, _words(segment), segment.now))
        if work.final_at is not None:
            results.append(_finish(segment, work.final_at))
        return Outcome(tuple(results))


def _detect_speech(
    segment: _Segment, audio: np.ndarray[tuple[int], np.dtype[np.float32]]
) -> tuple[float, ...]:
    """Advance through ``audio``; the speech probability of each frame completed."""
    samples = np.concatenate([segment.pending, audio])
    count = len(samples) // VAD_FRAME
    frames = samples[: count * VAD_FRAME].reshape(count, VAD_FRAME)
    speech = []
    keyterms = segment.options.keyterms
    for frame, level in zip(frames, np.sqrt((frames**2).mean(axis=1)), strict=True):
        before = segment.now
        digest, open_frames, silent = before.digest, before.open_frames, before.silent_frames + 1
        if level > SPEECH_LEVEL:
            digest = crc32(np.round(frame * 32_768).astype("<i2").tobytes(), digest)
            open_frames, silent = open_frames + 1, 0
        end = segment.start + (segment.frames + (silent == 0)) * VAD_FRAME
        segment.frames += 1
        if open_frames == FRAMES_PER_WORD or (open_frames and silent):
            segment.words.append(_word(digest, open_frames, end, keyterms, final=True))
            digest, open_frames = 0, 0
        moment = _Moment(len(segment.words), open_frames, digest, silent, keyterms)
        segment.moments.append(moment)
        speech.append(SPEECH if silent == 0 else SILENCE)
    segment.pending = samples[count * VAD_FRAME :]
    segment.position += len(audio)
    return tuple(speech)


def _finish(segment: _Segment, at: int) -> StepResult:
    """The segment as it was at ``at``, all its words final."""
    back = segment.frames - (at - segment.start) // VAD_FRAME
    moment = segment.moments[-1 - min(back, len(segment.moments) - 1)]
    end = segment.start + (segment.frames - back) * VAD_FRAME
    words = tuple(segment.words[: moment.whole])
    if moment.open_frames:
        words += (_word(moment.digest, moment.open_frames, end, moment.keyterms, final=True),)
    return _report(segment, at, (), words, moment)


def _word(digest: int, frames: int, end: int, keyterms: tuple[str, ...], *, final: bool) -> Word:
    term = ""
    if keyterms and digest % 4 == 0:
        term = "-".join(keyterms[digest // 4 % len(keyterms)].split())
    syllables = 1 + digest % 2
    text = ""
    for _ in range(syllables):
        text += _ONSETS[(digest := digest >> 2) % 16] + _VOWELS[(digest := digest >> 4) % 8]
    if final and digest % 4 == 0:
        text += "."
    confidence = 0.5 + (digest % 50) / 100
    return Word(term or text, end - frames * VAD_FRAME, end, confidence, final)


def _words(segment: _Segment) -> tuple[Word, ...]:
    now = segment.now
    if not now.open_frames:
        return tuple(segment.words)
    end = segment.start + segment.frames * VAD_FRAME
    return (*segment.words, _word(now.digest, now.open_frames, end, now.keyterms, final=False))


def _report(
    segment: _Segment,
    position: int,
    speech: tuple[float, ...],
    words: tuple[Word, ...],
    moment: _Moment,
) -> StepResult:
    confidence = 0.0
    if words and moment.silent_frames * VAD_FRAME >= segment.options.pause:
        ended = words[-1].text.endswith(".")
        confidence = END_PUNCTUATION_CONFIDENCE if ended else OPEN_CONFIDENCE
    language = segment.options.language or "en"
    return StepResult(position, speech, words, position, confidence, language, 0.99)


def create(settings: RecognizerSettings) -> Recognizer:
    """The factory that ``--engine-kind scripted`` names."""
    return ScriptedRecognizer(settings.max_streams or 1_000)
