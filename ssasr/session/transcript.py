"""The words of the open turn, as the client has been sent them.

Guarantees to the client: a word that was sent as final never changes, moves or repeats within its
turn, whatever the engine answers later; and times never go back, not even from turn to turn. Final
words are therefore kept as they were sent, and only the words after them are taken from later
updates.
"""

from collections.abc import Iterable, Sequence

from attrs import evolve, frozen

from ssasr.protocol.joining import join
from ssasr.protocol.messages import TurnWord
from ssasr.protocol.recognition import SAMPLE_RATE, Word
from ssasr.session.casing import first_word, lower_capitals, sentence_continues
from ssasr.session.formatting import plain
from ssasr.session.rewriting import Rewrite


def probability(value: float) -> float:
    """``value`` limited to 0 to 1 and rounded to four digits; NaN gives 0."""
    return round(min(value, 1.0), 4) if value > 0 else 0.0


@frozen
class _Kept:
    """One word, formatted and plain; times in milliseconds."""

    text: str
    plain: str
    start: int
    end: int
    confidence: float
    final: bool

    def written(self, text: str) -> "_Kept":
        return evolve(self, text=text)

    def shown(self, formatted: bool, finality: bool) -> TurnWord:
        text = self.text if formatted else self.plain
        return TurnWord(text, self.start, self.end, self.confidence, self.final and finality)


class Transcript:
    """The words of the open turn; times and the turn number go on across turns."""

    def __init__(self) -> None:
        self.turn_order = 0
        self._taken = 0  # words of the engine's that are in _finals (or had no text)
        self._received: Sequence[Word] = ()
        self._forms: dict[str, tuple[str, str]] = {}  # engine's text to both forms, of this segment
        self._finals: list[_Kept] = []
        self._open: list[_Kept] = []
        self._uttered = 0
        self._shown: tuple[int, list[str]] = (0, [])  # how many finals, and the open words
        self._sent: list[TurnWord] = []  # the finals, as
        self._sent_as = (False, False)  # formatted, with finality
        self.final_text = ""
        """The text of the final words that ``words`` returned last."""
        self._floor = (0, 0)  # start and end of the last word of the last turn
        self._turn_before = ""  # its last word
        self.last_end: int | None = None
        """Stream sample at which the engine's last word ends."""
        self.first_start = 0
        """Stream sample at which the engine's first word starts; 0 without words."""

    @property
    def any_words(self) -> bool:
        return bool(self._finals or self._open)

    @property
    def last_text(self) -> str:
        """The last word as the model writes it; "" without words."""
        words = self._open or self._finals
        return words[-1].text if words else ""

    def is_known(self, words: Sequence[Word]) -> bool:
        """Whether these are the words of the last update, as after most steps."""
        return words is self._received or words == self._received

    def update(self, words: Sequence[Word], rewrite: Rewrite | None = None) -> None:
        """Take the segment's words so far, final ones first; what is shown of them is what
        ``rewrite`` makes of them."""
        if self.is_known(words):
            return
        self._received = words
        final = self._taken
        while final < len(words) and words[final].final:
            final += 1
        new = self._with_forms(words, rewrite)
        self._finals.extend(self._kept(new[: final - self._taken], final=True))
        self._open = list(self._kept(new[final - self._taken :], final=False))
        self._taken = final
        if words:
            self.first_start = words[0].start
            self.last_end = words[-1].end

    def _last(self) -> tuple[int, int]:
        return (self._finals[-1].start, self._finals[-1].end) if self._finals else self._floor

    def _with_forms(
        self, words: Sequence[Word], rewrite: Rewrite | None
    ) -> list[tuple[Word, str, str]]:
        """The words that are not final here yet, each with its formatted and its plain text.
        ``rewrite`` gets all words, because it may depend on the context."""
        wanted = words if rewrite else words[self._taken :]
        forms = [self._forms.get(word.text) or self._new_forms(word.text) for word in wanted]
        if rewrite and forms:
            texts, bares = map(rewrite, zip(*forms, strict=True))
            forms = list(zip(texts, bares, strict=True))[self._taken :]
        return [(word, *form) for word, form in zip(words[self._taken :], forms, strict=True)]

    def _kept(self, words: Iterable[tuple[Word, str, str]], *, final: bool) -> Iterable[_Kept]:
        (start, end), first = self._last(), not self._finals
        for word, text, bare in words:
            if not bare:
                continue  # only a dash or a note
            start = max(start, self.milliseconds(word.start))
            if first:
                text = first_word(
                    text, continues=sentence_continues(self._turn_before, start - end)
                )
                first = False
            end = max(start, end, self.milliseconds(word.end))
            yield _Kept(text, bare, start, end, probability(word.confidence), final)

    def _new_forms(self, original: str) -> tuple[str, str]:
        text = " ".join(original.split())
        self._forms[original] = forms = text, plain(text)
        return forms

    def milliseconds(self, sample: int) -> int:
        """A stream sample's time as it is sent to clients."""
        return sample * 1_000 // SAMPLE_RATE

    def take_change(self) -> bool:
        """Whether the text has changed since the last call."""
        # Final words do not change, so it is enough to compare their number.
        shown = (len(self._finals), [word.text for word in self._open])
        changed, self._shown = shown != self._shown, shown
        return changed

    def words(self, *, formatted: bool, finality: bool) -> tuple[TurnWord, ...]:
        """The words of the turn so far. ``finality``: if False, every word is marked as one that
        may change. Final words are the same objects in each call."""
        if self._sent_as != (formatted, finality):
            self._sent_as, self._sent, self.final_text = (formatted, finality), [], ""
        sent = self._sent
        if len(sent) < len(self._finals):
            sent += [word.shown(formatted, finality) for word in self._finals[len(sent) :]]
            self.final_text = join([word.text for word in sent])
        return (*sent, *[word.shown(formatted, finality) for word in self._open])

    def new_utterance(self, *, formatted: bool) -> str:
        """The text since the last utterance, as a new utterance; "" if there is none."""
        words = (self._finals + self._open)[self._uttered :]
        self._uttered += len(words)
        return join(word.text if formatted else word.plain for word in words)

    def finish(self, *, formatted: bool) -> tuple[TurnWord, ...]:
        """Make all words final and return them."""
        self._finals += [evolve(word, final=True) for word in self._open]
        self._open = []
        texts = [word.text for word in self._finals]
        if (lowered := lower_capitals(texts)) != texts:
            lowered[0] = first_word(lowered[0], continues=False)
            self._finals = list(map(_Kept.written, self._finals, lowered))
            self._sent, self.final_text = [], ""
        return self.words(formatted=formatted, finality=True)

    def next_segment(self, *, turn_ended: bool) -> None:
        """Forget the words but not the time reached; ``turn_ended``: count the turn."""
        self._floor = self._last()
        if turn_ended:
            self._turn_before = self.last_text
        self.turn_order += turn_ended
        self._forms = {}
        self.forget()

    def forget(self) -> None:
        """Forget all words of the segment, even final ones. For family P, whose clients are sent
        none as final before the end of a turn."""
        self._received, self._taken, self._uttered = (), 0, 0
        self._finals, self._open, self._shown = [], [], (0, [])
        self._sent, self.final_text = [], ""
        self.last_end, self.first_start = None, 0
