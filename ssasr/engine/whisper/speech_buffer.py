"""The audio of one segment, and which frames of it are speech.

Audio arrives in pieces of any size, with the speech detector's probability for each whole frame.
The segment advances through it (``advance``) in steps of its own, so that results depend on
positions and not on the pieces. No torch, no clock.
"""

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from ssasr.protocol.recognition import SPEECH_THRESHOLD, VAD_FRAME, speech_floor

Samples = NDArray[np.float32]

GAP = 6 * VAD_FRAME
"""Silence between two words that is a good place to cut, and that no word spans."""


@define(eq=False)
class SpeechBuffer:
    """``position``: how far the segment has advanced. Positions are stream samples."""

    start: int
    threshold: float = SPEECH_THRESHOLD
    """The probability from which a frame is speech; for frames received from now on."""
    position: int = field(init=False)
    received: int = field(init=False)
    speaking: bool = False
    speech_end: int | None = None
    """End of the last frame of speech since the last rest; None: there was none."""
    spoken: int = 0
    """Samples of speech since the last rest."""
    _kept_from: int = field(init=False)
    _audio: Samples = field(init=False)
    _tail: Samples = field(init=False)
    """Samples of the frame that is not complete yet."""
    _ahead: deque[tuple[float, float]] = field(factory=deque)
    """Probability and threshold of each frame after ``position``."""
    _speech: list[bool] = field(factory=list)
    """For each whole frame since ``_speech_from``: whether it is speech."""
    _speech_from: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.position = self.received = self._kept_from = self._speech_from = self.start
        self._audio = self._tail = np.zeros(0, dtype=np.float32)

    def frames(self, audio: Samples) -> Samples:
        """The whole frames that ``audio`` completes, (k, VAD_FRAME), for the speech detector."""
        joined = np.concatenate([self._tail, audio]) if len(self._tail) else audio
        whole = len(joined) // VAD_FRAME * VAD_FRAME
        self._tail = joined[whole:]
        return joined[:whole].reshape(-1, VAD_FRAME)

    def receive(self, audio: Samples, probabilities: Sequence[float]) -> None:
        """``probabilities`` of the frames that this audio completed."""
        self._audio = np.concatenate([self._audio, audio])
        self.received += len(audio)
        self._ahead.extend((probability, self.threshold) for probability in probabilities)

    def advance(self, position: int) -> tuple[float, ...]:
        """Advance to ``position``, at most to the end of the audio received. Returns the
        probabilities of the frames that end on the way."""
        count = (position - self.start) // VAD_FRAME - (self.position - self.start) // VAD_FRAME
        self.position = position
        frames = [self._ahead.popleft() for _ in range(count)]
        for probability, threshold in frames:
            self.speaking = probability >= speech_floor(threshold, speaking=self.speaking)
            self._speech.append(self.speaking)
            if self.speaking:
                self.speech_end = self._speech_from + len(self._speech) * VAD_FRAME
                self.spoken += VAD_FRAME
        return tuple(probability for probability, _ in frames)

    def begin_afresh(self) -> None:
        """Begin to count speech afresh: all words so far are final."""
        self.speech_end = None
        self.spoken = 0

    def forget(self, before: int) -> None:
        """Drop the audio before that sample, and the frames that end before it."""
        if before <= self._kept_from:
            return
        self._audio = self._audio[before - self._kept_from :].copy()
        self._kept_from = before
        frames = (before - self._speech_from) // VAD_FRAME
        del self._speech[:frames]
        self._speech_from += frames * VAD_FRAME

    # -- questions -----------------------------------------------------------------------------

    @property
    def silence(self) -> int:
        """Samples since speech ended; since the start of the segment if there was none."""
        return self.position - (self.start if self.speech_end is None else self.speech_end)

    @property
    def behind(self) -> int:
        """Samples received after ``position``."""
        return self.received - self.position

    @property
    def silence_ahead(self) -> int:
        """Samples of silence at the end of the audio after ``position``."""
        count = 0
        for probability, threshold in reversed(self._ahead):
            if probability >= speech_floor(threshold, speaking=True):
                break
            count += VAD_FRAME
        return count

    def samples(self, begin: int, end: int) -> Samples:
        return self._audio[begin - self._kept_from : end - self._kept_from]

    def recent(self, length: int) -> Samples:
        """The last ``length`` samples before ``position``, or as many as are kept."""
        return self.samples(max(self._kept_from, self.position - length), self.position)

    def voiced(self, begin: int, end: int) -> NDArray[np.bool_]:
        """Speech or not for the frames from the one that ``begin`` lies in to the last that is over
        at ``end``: one that is not must not count, since it may not have been processed yet."""
        return np.array(self._speech[self._frame(begin) : self._frame(end)], dtype=bool)

    def speech_until(self, at: int) -> int | None:
        """The end of the last frame of speech that is over at ``at``; None if all is silent."""
        for frame in range(min(self._frame(at), len(self._speech)) - 1, -1, -1):
            if self._speech[frame]:
                return self._speech_from + (frame + 1) * VAD_FRAME
        return None

    def silent_until(self, at: int) -> int:
        """The end of the silent frames from the one that ``at`` lies in, as far as is known."""
        frame = self._frame(at)
        while frame < len(self._speech) and not self._speech[frame]:
            frame += 1
        return self._speech_from + frame * VAD_FRAME

    def stretches(self, begin: int, end: int) -> list[tuple[int, int]]:
        """Speech between ``begin`` and ``end``, as spans with silence of ``GAP`` between them."""
        first = self._frame(begin)
        edges = np.flatnonzero(self.voiced(begin, end)) + first
        if not len(edges):
            return []
        breaks = np.flatnonzero(np.diff(edges) > GAP // VAD_FRAME)
        starts, ends = edges[[0, *(breaks + 1)]], edges[[*breaks, -1]] + 1
        spans = (self._speech_from + np.stack([starts, ends], axis=1) * VAD_FRAME).tolist()
        if ends[-1] == self._frame(end):
            spans[-1][1] = end
        return [(max(begin, one), other) for one, other in spans]

    def longest_stretch(self, begin: int, end: int) -> tuple[int, int]:
        """The longest of the ``stretches``; all of it if there is none."""
        spans = self.stretches(begin, end)
        return max(spans, key=lambda span: span[1] - span[0], default=(begin, end))

    def pauses(self, begin: int, end: int) -> list[int]:
        """The middle of each silence between two ``stretches``."""
        spans = self.stretches(begin, end)
        return [(before + following) // 2 for (_, before), (following, _) in pairwise(spans)]

    def _frame(self, sample: int) -> int:
        return max(0, (sample - self._speech_from) // VAD_FRAME)
