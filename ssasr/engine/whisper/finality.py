"""How sure a word must be before it is final, by the session's ``mode``.

A word is final when the last ``agreement`` hypotheses begin with the same words up to it, and it
ends at least ``margin`` before the end of the speech in the newest one, because what the decoder
finds in the last second may still change as the sentence goes on. Where the model is not sure of
the word, ``doubts`` more hypotheses must agree.
"""

from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen

SURE_WORD = 0.7
"""Confidence from which the model is sure of a word."""


@frozen
class Finality:
    """Hypotheses and samples."""

    agreement: int
    doubts: int
    margin: int

    def wanted(self, confidence: float) -> int:
        """Hypotheses that must agree on a word of such a confidence."""
        return self.agreement + (0 if confidence >= SURE_WORD else self.doubts)

    @property
    def most(self) -> int:
        """Hypotheses that may be asked for."""
        return self.agreement + self.doubts


USUAL = Finality(agreement=2, doubts=1, margin=14_400)
"""``doubts`` save a fifteenth of the errors in read English (tiny.en, the half that settings are
chosen on), a twentieth with base; words are final 0.04 to 0.1 s later in the median, 0.25 s at
p95."""
BY_MODE: Mapping[str | None, Finality] = MappingProxyType(
    {
        None: USUAL,
        "min_latency": Finality(agreement=2, doubts=0, margin=9_600),
        "balanced": USUAL,
        "max_accuracy": Finality(agreement=3, doubts=1, margin=19_200),
    }
)
MOST = max(each.most for each in BY_MODE.values())
