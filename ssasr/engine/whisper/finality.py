"""How sure a word must be before it is final, by the session's ``mode``.

A word is final when the last ``agreement`` hypotheses begin with the same words up to it, and it
ends at least ``margin`` before the end of the speech in the newest one, because what the decoder
finds in the last second may still change as the sentence goes on. Where the model is not sure of
the word, ``doubts`` more hypotheses must agree. The first word of a turn has nothing before it: one
that is a guess (``GUESS``) waits for ``opening`` more speech, with which the model often finds
another ("Like your country" is "What your country can do for you, ask what" three seconds later).
"""

from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen

SURE_WORD = 0.7
"""Confidence from which the model is sure of a word."""
GUESS = 0.45
"""Confidence below which it is not sure at all."""


@frozen
class Finality:
    """Hypotheses and samples."""

    agreement: int
    doubts: int
    margin: int
    opening: int

    def follows(self, confidence: float, *, first: bool) -> int:
        """Samples of speech after the word. ``first``: of the turn."""
        return self.opening if first and confidence < GUESS else self.margin

    def wanted(self, confidence: float) -> int:
        """Hypotheses that must agree on a word of such a confidence."""
        return self.agreement + (0 if confidence >= SURE_WORD else self.doubts)

    @property
    def most(self) -> int:
        """Hypotheses that may be asked for."""
        return self.agreement + self.doubts


USUAL = Finality(agreement=2, doubts=1, margin=14_400, opening=35_200)
"""``doubts`` save a fifteenth of the errors in read English (tiny.en, the half that settings are
chosen on), a twentieth with base; words are final 0.04 to 0.1 s later in the median, 0.25 s at
p95. ``opening`` costs 0.13 s at p95 (``benchmarks/archive/whisper_streaming.md``)."""
BY_MODE: Mapping[str | None, Finality] = MappingProxyType(
    {
        None: USUAL,
        "min_latency": Finality(agreement=2, doubts=0, margin=9_600, opening=9_600),
        "balanced": USUAL,
        "max_accuracy": Finality(agreement=3, doubts=1, margin=19_200, opening=35_200),
    }
)
MOST = max(each.most for each in BY_MODE.values())
