"""A segment of a file: nobody waits for words in the making, so there is one decode, at its end,
with all of the audio as its context. Pure, as ``segment``.
"""

from attrs import define

from ssasr.engine.recognizer import StepResult
from ssasr.engine.whisper.placement import LEAD
from ssasr.engine.whisper.segment import LEAST_SPEECH, RINGING, Due, Kind, Segment


@define(eq=False)
class WholeSegment(Segment):
    """Its length is the session's choice: no longer than the encoder takes."""

    def advance(self, final_at: int | None, interval: int = 1) -> list[StepResult]:
        """One answer for all the audio that there is, or the final one."""
        if self._first_part is not None:
            return []
        received = self.speech_buffer.received
        end = received if final_at is None else min(final_at, received)
        if end > self.position:
            self._advance_to(end)
        if final_at is None:
            return [self._answer()] if self._answered < self.position else []
        self.due = self._due_at_end(final_at)
        if self.due is not None:
            return []
        return [self._result(final_at, self._final_words(final_at), final_at)]

    def _due_at_end(self, at: int) -> Due | None:
        if self._ending is not None:
            return None
        spoken = self.speech_buffer.stretches(self.start, at)
        if not spoken or self.speech_buffer.spoken < LEAST_SPEECH:
            return None
        begin = max(self.start, spoken[0][0] - LEAD)
        return Due(Kind.FINAL, begin, min(at, spoken[-1][1] + RINGING))
