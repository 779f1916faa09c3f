"""One segment of one stream: what was heard, what is due to be decoded, which words are final.

Pure policy: samples, speech probabilities and hypotheses in, requests for decodes and words out. No
torch, no clock.

*When to decode.* While there is speech, at every ``STEP`` on a grid from the segment's start. When
speech has stopped for ``SETTLE``, at once, so that the last words are there before anybody asks.
When it has stopped for the pause that the options ask for, the end of the turn is judged; and when
the session ends the segment, the words up to that sample are decoded unless a decode that is there
already covered all the speech before it. Silence is never decoded.

*What is decoded.* The audio from ``origin`` on: the segment's start, or a point that earlier words
made needless. Nothing forces committed words upon the decoder; it starts from scratch, and words
that lie before the end of the committed ones are dropped from what it says. Forcing them makes it
repeat itself (design, section 4).

*When a word is final.* When the last ``AGREEMENT`` hypotheses began with the same words up to it
and it ends at least ``MARGIN`` before the end of the speech in the newest: what the decoder says of
the last second is still a guess about a sentence that goes on. Later hypotheses may put it
otherwise; ``splice`` finds where they go on.

*Which language.* Detected with each decode until it is sure, then kept until the segment ends.

*What is forgotten.* Audio before a pause between final words, once the excerpt is longer than
``COMFORTABLE``; failing that, before the last final words once it is longer than ``CROWDED``. After
``REST`` of silence everything said is final and forgotten.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from attrs import define, evolve, field, frozen
from numpy.typing import NDArray

from ssasr.engine.whisper.splice import Spoken, after
from ssasr.protocol.recognition import SAMPLE_RATE, VAD_FRAME, StreamOptions, Word

Samples = NDArray[np.float32]

STEP = 6 * 1_536
"""Samples between two decodes while somebody speaks: 0.58 s."""
SETTLE = 6 * VAD_FRAME
"""Silence after which the words before it are decoded without waiting for the grid: 192 ms."""
HANG = 2 * VAD_FRAME
"""Silence in which a decode on the grid is put off: either speech goes on, or ``SETTLE`` comes."""
SPEECH = 0.5
"""Speech probability at which a frame counts as speech (Silero's own default)."""
STILL_SPEECH = 0.35
"""The same while somebody speaks already (Silero's default too: 0.15 below)."""
LEAST_SPEECH = 6 * VAD_FRAME
"""No decode before this much speech was heard; a click is not a word."""
FIRST_GUESS = 14 * VAD_FRAME
"""No decode of speech that goes on before this much of it, 0.45 s: of less, words are made up."""
LEAD = 8 * VAD_FRAME
"""Audio kept before speech begins: detection lags behind soft beginnings."""
AGREEMENT = 2
MARGIN = 14_400
REST = SAMPLE_RATE
COMFORTABLE = 8 * SAMPLE_RATE
CROWDED = 12 * SAMPLE_RATE
FULL = 26 * SAMPLE_RATE
"""Never more audio than this; Whisper has positions for 30 s."""
SURE_LANGUAGE = 0.8
"""Share among all languages at which a language is settled for the rest of the segment: changing
one's mind later costs every word that is not final, and asking costs a pass of the decoder."""
SURE_AFTER = SAMPLE_RATE
"""Speech that must have been heard for that."""
LEAST_WORD = 320
"""One frame of the alignment, 20 ms: a word of this length has no audio of its own."""
GAP = 6 * VAD_FRAME
"""Silence between two words that is a good place to cut."""


class Kind(IntEnum):
    """Why a decode is due; smaller is more urgent."""

    FINAL = 0
    SETTLED = 1
    PARTIAL = 2


@frozen
class Due:
    """Decode the samples from ``begin`` to ``end``."""

    kind: Kind
    begin: int
    end: int


@define(eq=False)
class Segment:
    """Grows by ``hear``; says by ``due`` what to decode; ``apply`` takes the hypothesis."""

    options: StreamOptions
    start: int
    committed: list[Word]
    position: int = field(init=False)
    origin: int = field(init=False)
    _audio: Samples = field(init=False)
    _speech: list[bool] = field(factory=list)
    """One for each whole frame since ``_speech_from``."""
    _speech_from: int = field(init=False)
    tail: Samples = field(init=False)
    """Samples of the frame that is not complete yet (only a flush leaves any)."""
    speaking: bool = False
    speech_end: int | None = None
    """End of the last frame of speech that no rest has followed yet."""
    spoken: int = 0
    """Samples of speech since the last rest."""
    pending: list[Spoken] = field(factory=list)
    """The newest hypothesis after the committed words."""
    draft: tuple[int, ...] = ()
    _history: list[list[str]] = field(factory=list)
    """Keys of the pending words in the hypotheses before the newest."""
    decoded: int = field(init=False)
    _grid: int = 0
    """The last grid point that a decode was made or found needless for."""
    judged: int | None = None
    """The ``speech_end`` for which the end of turn was judged."""
    end_of_turn: float = 0.0
    language: str | None = None
    language_confidence: float = 0.0
    language_settled: bool = False
    """Whether the language stays what it is until the segment ends."""

    def __attrs_post_init__(self) -> None:
        self.position = self.origin = self.decoded = self._speech_from = self.start
        self._audio = self.tail = np.zeros(0, dtype=np.float32)

    # -- listening -----------------------------------------------------------------------------

    def frames(self, audio: Samples) -> Samples:
        """The whole frames that ``audio`` completes, (k, VAD_FRAME), for the speech detector."""
        joined = np.concatenate([self.tail, audio]) if len(self.tail) else audio
        whole = len(joined) // VAD_FRAME * VAD_FRAME
        self.tail = joined[whole:]
        return joined[:whole].reshape(-1, VAD_FRAME)

    def hear(self, audio: Samples, probabilities: Sequence[float]) -> None:
        """``probabilities`` of the frames that this audio completed."""
        self._audio = np.concatenate([self._audio, audio])
        self.position += len(audio)
        for probability in probabilities:
            self.speaking = probability >= (STILL_SPEECH if self.speaking else SPEECH)
            self._speech.append(self.speaking)
            if self.speaking:
                self.speech_end = self._speech_from + len(self._speech) * VAD_FRAME
                self.spoken += VAD_FRAME
                self.end_of_turn = 0.0
        self._rest()

    def _rest(self) -> None:
        """After a rest the words before it are final; without speech only a lead is kept."""
        if self.speech_end is not None:
            if self.position - self.speech_end < max(REST, self.options.pause + SETTLE):
                return
            if not self.covered(self.speech_end):
                return
            self._commit(len(self.pending))
            self._history.clear()
            self.draft = ()
            self.speech_end = None
            self.spoken = 0
        self._forget(self.position - LEAD)

    def silence(self, at: int) -> int:
        """Samples since speech ended, at sample ``at``; from the start of the segment if nothing
        was said."""
        return at - (self.start if self.speech_end is None else self.speech_end)

    def covered(self, at: int) -> bool:
        """Whether all the speech before ``at`` is in the newest hypothesis."""
        return self.speech_end is None or self.decoded >= min(at, self.speech_end + HANG)

    def voiced(self, begin: int, end: int) -> NDArray[np.bool_]:
        """Speech or not for the frames that touch the samples from ``begin`` to ``end``."""
        first = max(0, (begin - self._speech_from) // VAD_FRAME)
        last = max(first, -(-(end - self._speech_from) // VAD_FRAME))
        return np.array(self._speech[first:last], dtype=bool)

    # -- deciding ------------------------------------------------------------------------------

    def due(self, final_at: int | None) -> Due | None:
        """The decode that the segment waits for now, if any."""
        if final_at is not None:
            return self._due_at_end(final_at)
        if self.speech_end is None or self.spoken < LEAST_SPEECH:
            return None
        silence = self.silence(self.position)
        grid = self.start + (self.position - self.start) // STEP * STEP
        if silence >= SETTLE:
            end = self.speech_end + SETTLE
            return None if self.covered(end) else self._due(Kind.SETTLED, end)
        # A decode at a pause stands for the next one on the grid if that is close.
        new = max(self._grid, self.decoded + STEP // 2, self.origin)
        if grid > new and silence < HANG and self.spoken >= FIRST_GUESS:
            return self._due(Kind.PARTIAL, grid)
        return None

    def _due_at_end(self, at: int) -> Due | None:
        if at <= self.origin or not self.voiced(self.origin, at).any():
            return None
        if self.spoken and self.decoded <= at and self.covered(at):
            return None
        if self.decoded > at and not self.voiced(at, self.decoded).any():
            # Only silence lies between ``at`` and what was decoded.
            return None
        return self._due(Kind.FINAL, at)

    def _due(self, kind: Kind, end: int) -> Due:
        """An engine far behind may have heard more since the last decode than fits into one."""
        return Due(kind, max(self.origin, end - FULL - STEP), end)

    def samples(self, due: Due) -> Samples:
        return self._audio[due.begin - self.origin : due.end - self.origin]

    def recent(self, length: int) -> Samples:
        """The last samples heard, ``length`` of them if there are that many."""
        return self._audio[-length:]

    def pause_reached(self) -> bool:
        """Whether the end of turn is to be judged now."""
        return (
            self.speech_end is not None
            and self.judged != self.speech_end
            and self.silence(self.position) >= self.options.pause
            and self.covered(self.position)
        )

    # -- hypotheses ----------------------------------------------------------------------------

    def detected(self, language: str, confidence: float) -> None:
        """Take what a decode that was not told the language found."""
        self.language, self.language_confidence = language, confidence
        self.language_settled = confidence >= SURE_LANGUAGE and self.spoken >= SURE_AFTER

    def forced(self, language: str) -> None:
        """Take a language that was asked for."""
        self.language, self.language_confidence, self.language_settled = language, 1.0, False

    def apply(self, due: Due, hypothesis: Sequence[Spoken], *, reliable: bool) -> None:
        """Take the words of a decode. ``reliable``: the decoder ended them by itself."""
        self.draft = tuple(token for spoken in hypothesis for token in spoken.tokens)
        new = after(hypothesis, self.committed, due.begin)
        self._history = [*self._history[-(AGREEMENT - 1) :], [word.key for word in self.pending]]
        self.pending = self._in_speech(new)
        self.decoded = due.end
        self._grid = max(self._grid, due.end)
        if due.kind is Kind.FINAL:
            return
        if reliable:
            self._commit(self._agreed(due.end))
        self._trim()

    def _agreed(self, end: int) -> int:
        """How many of the pending words are final now."""
        earlier = self._history[-(AGREEMENT - 1) :]
        if len(earlier) < AGREEMENT - 1:
            return 0
        # Silence is no further evidence: what counts is how much more speech was heard.
        heard = end if self.speech_end is None else min(end, self.speech_end)
        count = 0
        for index, spoken in enumerate(self.pending):
            same = all(len(keys) > index and keys[index] == spoken.key for keys in earlier)
            if not same or spoken.word.end > heard - MARGIN:
                break
            count = index + 1
        return count

    def _commit(self, count: int) -> None:
        for spoken in self.pending[:count]:
            self.committed.append(evolve(spoken.word, final=True))
        del self.pending[:count]
        self._history = [keys[count:] for keys in self._history]

    def _in_speech(self, words: Sequence[Spoken]) -> list[Spoken]:
        """Word borders moved out of silence, kept in order and after the committed words."""
        floor = self.committed[-1].end if self.committed else self.start
        placed = []
        for spoken in words:
            begin, end = self._shrink(max(spoken.word.start, floor), spoken.word.end)
            floor = end
            placed.append(evolve(spoken, word=evolve(spoken.word, start=begin, end=end)))
        return placed

    def _shrink(self, begin: int, end: int) -> tuple[int, int]:
        """The span without the silence at its edges; never empty."""
        end = max(end, begin + 1)
        voiced = self.voiced(begin, end)
        if not voiced.any():
            return begin, end
        first_frame = (begin - self._speech_from) // VAD_FRAME
        edges = np.flatnonzero(voiced)
        first = self._speech_from + (first_frame + int(edges[0])) * VAD_FRAME
        last = self._speech_from + (first_frame + int(edges[-1]) + 1) * VAD_FRAME
        begin = max(begin, first)
        return begin, max(begin + 1, min(end, last))

    # -- forgetting ----------------------------------------------------------------------------

    def _trim(self) -> None:
        length = self.decoded - self.origin
        if length <= COMFORTABLE:
            return
        cut = self._cut_in_silence() if self.committed else None
        if cut is None and length > CROWDED and len(self.committed) > 1:
            cut = self.committed[-2].start
        if length > FULL and (cut is None or cut < self.decoded - FULL):
            # Nothing agrees for so long: keep what was said, and go on.
            cut = self.decoded - CROWDED
            self._commit(sum(spoken.word.end <= cut for spoken in self.pending))
        if cut is not None and cut > self.origin:
            kept = [spoken for spoken in self.pending if spoken.word.start >= cut]
            self.draft = tuple(token for spoken in kept for token in spoken.tokens)
            self._forget(cut)

    def _cut_in_silence(self) -> int | None:
        """The middle of the last silence that lies between final words."""
        borders = [*self.committed[-20:]]
        following = self.pending[0].word.start if self.pending else borders[-1].end
        for word in reversed(borders):
            quiet = following - word.end
            if quiet >= GAP and not self.voiced(word.end + VAD_FRAME, following - VAD_FRAME).any():
                return word.end + quiet // 2
            following = word.start
        return None

    def _forget(self, before: int) -> None:
        """Drop the audio before that sample, and the frames that end before it."""
        before = min(max(before, self.origin), self.position)
        self._audio = self._audio[before - self.origin :].copy()
        self.origin = before
        frames = max(0, (before - self._speech_from) // VAD_FRAME)
        frames = min(frames, len(self._speech))
        del self._speech[:frames]
        self._speech_from += frames * VAD_FRAME

    # -- answers -------------------------------------------------------------------------------

    def words(self) -> tuple[Word, ...]:
        return (*self.committed, *(spoken.word for spoken in self.pending))

    def final_words(self, at: int) -> tuple[Word, ...]:
        """Every word up to ``at``, final."""
        return tuple(evolve(word, final=True) for word in self.words() if word.start < at)


def without_squeezed(words: Sequence[Spoken]) -> list[Spoken]:
    """Without runs of words that have no audio: the alignment gives every word its place, and what
    the decoder said twice, or made up, shares one frame. One such word may be a short one beside a
    long one; two in a row nobody says."""
    short = [spoken.word.end - spoken.word.start <= LEAST_WORD for spoken in words]
    kept = []
    for number, spoken in enumerate(words):
        beside = short[max(0, number - 1) : number + 2]
        if not (short[number] and sum(beside) > 1):
            kept.append(spoken)
    return kept
