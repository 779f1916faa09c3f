"""A segment of a file: nobody waits for words in the making, so there is one decode, at its end,
with all of the audio as its context. Pure, as ``segment``.
"""

from collections.abc import Sequence

from attrs import define

from ssasr.engine.recognizer import StepResult
from ssasr.engine.whisper.hypothesis_alignment import Spoken
from ssasr.engine.whisper.placement import LEAD, ended_by, unsaid
from ssasr.engine.whisper.segment import LEAST_SPEECH, RINGING, Due, Kind, Segment


@define(eq=False)
class WholeSegment(Segment):
    """Its length is the session's choice: no longer than the encoder takes."""

    def walk(self, final_at: int | None, interval: int = 1) -> list[StepResult]:
        """One answer for all the audio that there is, or the final one."""
        if self._first_part is not None:
            return []
        received = self.speech_buffer.received
        end = received if final_at is None else min(final_at, received)
        if end > self.position:
            self._enter(end)
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

    def apply(self, hypothesis: Sequence[Spoken], *, reliable: bool) -> None:
        """What was decoded next may begin with the word before it."""
        before = self._first_part[1][-1:] if self._first_part else []
        if before and hypothesis and before[0].key == hypothesis[0].key:
            hypothesis = hypothesis[1:]
        super().apply(hypothesis, reliable=reliable)
        if self._first_part is not None and self.due is not None:
            words = self._first_part[1]
            words[-1] = ended_by(words[-1], self.due.begin)

    def _left_out(self, hypothesis: Sequence[Spoken], due: Due) -> int | None:
        begin = super()._left_out(hypothesis, due)
        if begin is None:
            begin = unsaid(hypothesis, due.begin, due.end, self.speech_buffer)
        return begin
