"""Which language is spoken in a segment, by the detections of its decodes.

A decode without a given language detects one and gives its share of the probability among all that
are allowed. Detection is asked for after ``SURE_AFTER`` of speech; then every ``ASK_AGAIN`` until
the share is large enough; and then each time the amount of speech has grown by half, because more
speech is more reliable. A settled language is replaced only by one with as large a share. Pure;
works with amounts of speech (samples since the last rest), not with positions.
"""

from attrs import define

from ssasr.protocol.recognition import SAMPLE_RATE, SURE_LANGUAGE

SURE_AFTER = SAMPLE_RATE
"""Speech needed to settle a language: of half a second, base takes half the
languages for another, of one second, three in ten, but hardly any that has so large a share."""
ASK_AGAIN = SAMPLE_RATE // 2
"""More speech after which a language that is not settled is asked for again."""
SURE_ANYHOW = 6 * SAMPLE_RATE
"""Speech after which the likeliest language is settled whatever its share, and none is asked for
any more."""


@define(eq=False)
class SpokenLanguage:
    """``before``: what was spoken before the speech that is decoded."""

    before: str | None = None
    name: str | None = None
    confidence: float = 0.0
    settled: str | None = None
    """The same name once it is sure enough for words in it to be final."""
    _asked: bool = False
    _ask_at: int = SURE_AFTER

    def due(self, spoken: int) -> bool:
        """Whether it is to be asked for now."""
        return spoken >= self._ask_at and not (self.settled and self._ask_at > SURE_ANYHOW)

    def guessed(self, name: str, confidence: float) -> None:
        """By a decode that may be left out: it settles nothing."""
        if not self._asked:
            self.name, self.confidence = name, confidence

    def found(self, name: str, confidence: float, spoken: int) -> None:
        """By one that is made whatever the pace."""
        sure = confidence >= SURE_LANGUAGE
        if sure or not self.settled:
            self.name, self.confidence = name, confidence
        if spoken < SURE_AFTER:
            return
        self._asked = True
        if self.settled or sure or spoken >= SURE_ANYHOW:
            self.settled = self.name
        self._ask_at = spoken + (spoken // 2 if self.settled else ASK_AGAIN)

    def forced(self, name: str) -> None:
        """By the session. When it forces none any more, the language has to be found again."""
        self.name, self.confidence, self.settled = name, 1.0, None

    def expect(self, names: tuple[str, ...]) -> None:
        """Only one of these, if there are any, may stay settled."""
        if names and self.settled not in names:
            self.settled = None

    def begin_afresh(self) -> None:
        """What follows is asked about afresh, with this as what was spoken before."""
        self.before = self.settled or self.before
        self._ask_at = SURE_AFTER
