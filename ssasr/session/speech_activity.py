"""Where there is speech: hysteresis over the voice detector's probabilities, for one segment."""

from collections.abc import Sequence

from ssasr.protocol.recognition import LOWEST_THRESHOLD, VAD_FRAME, speech_floor

ONSET_FRAMES = 4
"""Frames of speech in a row (128 ms) before an onset is reported to a client. A voice agent stops
talking when it gets one, so a click must not cause it. A guess."""


class SpeechActivity:
    """Positions are stream samples; frames are counted from the start of the segment."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._frames = 0
        self._run = 0
        self.speaking = False
        self.speech = 0
        """Samples of speech in the segment."""
        self.speech_end: int | None = None
        """End of the last frame with speech; None before the first."""
        self.onset: int | None = None
        """Where the first confirmed speech began; until then, where the latest speech began."""
        self.onset_confirmed = False
        self.loudest = 0.0
        """The highest probability of a frame of speech so far."""

    def update(self, position: int, speech: Sequence[float], threshold: float) -> None:
        """``speech``: the probabilities of the frames completed up to ``position``. Those that were
        counted before are ignored: an engine that took over, or that decoded late, may repeat
        them."""
        new = (position - self._start) // VAD_FRAME - self._frames
        frames = speech[max(len(speech) - new, 0) :] if new > 0 else ()
        threshold = max(threshold, LOWEST_THRESHOLD)
        if frames and not self._update_unchanged(frames, threshold):
            for frame in frames:
                self._update_frame(frame, threshold)

    def _update_unchanged(self, frames: Sequence[float], threshold: float) -> bool:
        """Count all frames at once if speech or silence just goes on, as it nearly always does;
        otherwise do nothing and return False."""
        if self.speaking:
            floor = speech_floor(threshold, speaking=True)
            if not self.onset_confirmed or min(frames) < floor:
                return False
            self.speech += len(frames) * VAD_FRAME
            self.loudest = max(self.loudest, *frames)
        elif max(frames) >= threshold:
            return False
        self._frames += len(frames)
        if self.speaking:
            self.speech_end = self._start + self._frames * VAD_FRAME
        return True

    def _update_frame(self, frame: float, threshold: float) -> None:
        begin = self._start + self._frames * VAD_FRAME
        self._frames += 1
        speaking = frame >= speech_floor(threshold, speaking=self.speaking)
        if speaking and not self.speaking:
            self._run = 0
            if not self.onset_confirmed:
                self.onset = begin
        self.speaking = speaking
        if not speaking:
            return
        self._run += 1
        self.speech += VAD_FRAME
        self.speech_end = begin + VAD_FRAME
        self.loudest = max(self.loudest, frame)
        self.onset_confirmed = self.onset_confirmed or self._run >= ONSET_FRAMES
