"""How much audio a decode of an open segment takes, and where it is cut off when it is too much.

An excerpt loses the audio before a silence between words once it is longer than ``comfortable``;
failing that, the audio before a word, once it is ``crowded``. Pure.
"""

from collections.abc import Sequence

from attrs import frozen

from ssasr.engine.whisper.hypothesis_alignment import DecodedWord
from ssasr.engine.whisper.speech_buffer import SpeechBuffer
from ssasr.protocol.recognition import SAMPLE_RATE

CONTEXT = SAMPLE_RATE
"""Audio that a cut leaves before it and after it, if it can."""


@frozen
class Excerpts:
    """``comfortable``, ``crowded``: samples. ``steps``: decodes for partial results are rarer by
    that."""

    comfortable: int
    crowded: int
    steps: int = 1

    def cut(
        self, begin: int, end: int, words: Sequence[DecodedWord], speech_buffer: SpeechBuffer
    ) -> int | None:
        """Where the decode of ``begin`` to ``end``, which found these words, is to be cut."""
        if end - begin <= self.comfortable:
            return None
        silent = _silent_cut(begin, end, speech_buffer)
        if silent is not None or end - begin < self.crowded:
            return silent
        # The start of the last word with twice the usual context after it; failing that, a place
        # that leaves half of the audio.
        starts = [spoken.word.start for spoken in words]
        fits = [at for at in starts if begin + CONTEXT <= at <= end - 2 * CONTEXT]
        return fits[-1] if fits else end - self.crowded // 2


def _silent_cut(begin: int, end: int, speech_buffer: SpeechBuffer) -> int | None:
    """The middle of the last silence with enough audio before and after it."""
    pauses = speech_buffer.pauses(begin, end)
    fits = [cut for cut in pauses if begin + CONTEXT <= cut <= end - CONTEXT]
    return fits[-1] if fits else None


LIVE = Excerpts(comfortable=8 * SAMPLE_RATE, crowded=12 * SAMPLE_RATE)
TENTATIVE = Excerpts(comfortable=20 * SAMPLE_RATE, crowded=26 * SAMPLE_RATE, steps=2)
"""Where words may be tentative until the end (``StreamOptions.tentative``), so that all but the
longest turns end with one decode of the whole turn; the model was trained with 30 s."""
