"""One segment of one stream: what is due to be decoded, and which words are final.

Pure policy: samples, speech probabilities and hypotheses go in; requests for decodes and answers
come out. No torch, no clock.

*When to decode.* At fixed positions of the audio. The segment does not advance beyond such a
position before its decode is done, so the result is the same when another engine takes the segment
over, or when the audio comes in large pieces because the engine is behind. The positions are: every
``STEP`` of speech, for partial results; ``SETTLE`` after speech has stopped, so that the last words
are there before they are asked for; when an excerpt is ``crowded`` (``excerpts``); when the
language is to be detected (``language``); and the end of the segment, unless an earlier decode
already covers all speech before it. Silence is never decoded.

*What may be left out.* Decodes for partial results only. An engine under load multiplies ``STEP``
for all streams (``partial_interval``); and a segment that is taken over leaves out those before the
hypotheses by which the client's last final word became final.

*What is decoded.* The audio from ``origin`` on: the segment's start, or a later point before which
all words are final. The decoder starts from scratch, and of its words those before the end of the
committed ones are dropped. Giving it the committed words as a forced prefix makes it repeat itself.
Where the decoder ends its text before a pause after which much more was said, what is left is
decoded next, and the two are one hypothesis.

*When a word is final.* When enough hypotheses agree on it (``finality``). Later ones may differ;
``hypothesis_alignment`` finds where they continue. No word becomes final before the language is
settled, unless a rest or a cut comes first: two hypotheses can agree on a wrong language. In a
segment whose words may be tentative until its end (``StreamOptions.tentative``) no word becomes
final by agreement.

*What is forgotten.* The audio before a cut, where an excerpt has grown too long (``excerpts``).
After a rest all words are final and the audio is dropped.

*The end may lie in the past.* The session decides on the end of a turn after the segment has
advanced further. So the decodes and the language of the last ``BACK`` samples are remembered, and
the answer is the one that would have been given at that position.
"""

from bisect import bisect_right
from collections.abc import Sequence
from enum import IntEnum

from attrs import define, evolve, field, frozen

from ssasr.engine.recognizer import StepResult
from ssasr.engine.whisper import excerpts, finality
from ssasr.engine.whisper.end_of_turn import likelihood
from ssasr.engine.whisper.excerpts import Excerpts
from ssasr.engine.whisper.finality import Finality
from ssasr.engine.whisper.hypothesis_alignment import DecodedWord, after
from ssasr.engine.whisper.language import SpokenLanguage
from ssasr.engine.whisper.placement import LEAD, in_speech, left_out
from ssasr.engine.whisper.speech_buffer import Samples, SpeechBuffer
from ssasr.protocol.recognition import BOUNDARY_BACK, SAMPLE_RATE, VAD_FRAME, StreamOptions, Word
from ssasr.protocol.text import ends_sentence

CHUNK = 3 * VAD_FRAME
"""Samples from one answer to the next: 96 ms."""
STEP = 6 * CHUNK
"""Samples between two decodes while somebody speaks: 0.58 s."""
SETTLE = 6 * VAD_FRAME
"""Silence after which the words before it are decoded: 192 ms."""
RINGING = SETTLE // 2
"""How much of that silence is decoded. A session cuts in the middle of a silence, so for a turn
that ends after ``SETTLE`` or later this decode is the last one."""
HANG = 2 * VAD_FRAME
"""Silence in which a decode on the grid is put off: speech goes on, or ``SETTLE`` comes."""
LEAST_SPEECH = 6 * VAD_FRAME
"""No decode before this much speech; a click is not a word."""
FIRST_PARTIAL = 14 * VAD_FRAME
"""No decode of continuing speech shorter than this (0.45 s): the model invents words for less."""
REST = SAMPLE_RATE
"""Silence after which all words are final."""
BACK = 10 * SAMPLE_RATE
"""How far in the past the session may end the segment and still get the decode of that position."""


class Kind(IntEnum):
    """Why a decode is made; smaller values are more urgent."""

    FINAL = 0
    SETTLED = 1
    LANGUAGE = 2
    CROWDED = 3
    PARTIAL = 4


@frozen
class Due:
    """Decode the samples from ``begin`` to ``end``."""

    kind: Kind
    begin: int
    end: int
    continues: bool = False
    """Whether they are what the decode before it left out."""


@frozen
class _Mark:
    """The result of decoding the audio from ``begin`` to ``end``."""

    begin: int
    end: int
    words: tuple[DecodedWord, ...]
    stands: bool
    """Whether it is there whatever was left out."""


@define(eq=False)
class Segment:
    """``advance`` says what can be said until a decode is needed; ``apply`` takes its words.

    ``multilingual``: of a model whose language is not known unless the options force one."""

    options: StreamOptions
    start: int
    committed: list[Word]
    """The words that are final."""
    taken_over: int = 0
    """Position at which the last of those became final that the segment begins with."""
    multilingual: bool = False
    language: SpokenLanguage = field(factory=SpokenLanguage)
    """As of where the segment has advanced to, and at last as of its end."""
    speech_buffer: SpeechBuffer = field(init=False)
    pending: list[DecodedWord] = field(factory=list)
    """The newest hypothesis after the committed words."""
    decoded: int = field(init=False)
    """End of the audio in the newest hypothesis."""
    due: Due | None = None
    """The decode that comes next, if any."""
    end_of_turn_due: bool = False
    """Whether the end of turn is to be estimated before the next answer."""
    evidence: float | None = None
    """That the turn ends with this pause, but for its length (``end_of_turn``); None: the pause has
    not been looked at yet, or is over."""
    _hypotheses: list[_Mark] = field(factory=list)
    """As many as have to agree, the newest last, since the last rest. Where the committed words end
    in them is found anew when there are more of these: an engine that takes the segment over knows
    them all from the start, and must find the same."""
    _committed_at: list[int] = field(init=False)
    """Position at which each committed word became final."""
    _marks: list[_Mark] = field(factory=list)
    _origins: list[tuple[int, int]] = field(init=False)
    """(position, origin): where decodes began from that position on."""
    _languages: list[tuple[int, SpokenLanguage]] = field(init=False)
    """(position, language): what was known from there on, but for decodes that may be left out."""
    _answered: int = field(init=False)
    """The last position for which an answer was given."""
    _speech: tuple[float, ...] = ()
    """Probabilities for the next answer."""
    _estimated_for: int | None = None
    """The end of speech for which the end of turn was estimated."""
    _ending: _Mark | None = None
    """The decode at the end of the segment."""
    _first_part: tuple[Due, list[DecodedWord]] | None = None
    """The decode that ``due`` goes on with, and the words so far."""

    def __attrs_post_init__(self) -> None:
        self.speech_buffer = SpeechBuffer(self.start, self.options.vad_threshold)
        self.decoded = self._answered = self.start
        self._committed_at = [self.start] * len(self.committed)
        self._origins = [(self.start, self.start)]
        self._languages = [(self.start, evolve(self.language))]

    @property
    def position(self) -> int:
        return self.speech_buffer.position

    @property
    def origin(self) -> int:
        """Where decodes begin now."""
        return self._origins[-1][1]

    def configure(self, options: StreamOptions) -> None:
        """From here on."""
        self.options = options
        self.speech_buffer.threshold = options.vad_threshold
        self.language.expect(options.languages)
        self._keep_language(self.position)

    # -- advancing -----------------------------------------------------------------------------

    def advance(self, final_at: int | None, interval: int = 1) -> list[StepResult]:
        """Advance from chunk to chunk until the audio ends, or ``due`` or ``end_of_turn_due`` is
        set. Returns the answers; with ``final_at`` the last is the final one, once nothing is
        due."""
        answers: list[StepResult] = []
        if self._first_part is not None:
            return answers  # the second part is due
        end = self.speech_buffer.received
        end = end if final_at is None else min(final_at, end)
        while True:
            if final_at is not None and self._ends(final_at):
                self.due = self._due_at_end(final_at)
                if self.due is None:
                    answers.append(self._result(final_at, self._final_words(final_at), final_at))
                return answers
            if self._answered < self.position:
                self.due = self._due_here(interval)
                self.end_of_turn_due = self.due is None and self._pause_reached()
                if self.due or self.end_of_turn_due:
                    return answers
                self._commit_at_rest()
                answers.append(self._answer())
            following = self.start + ((self.position - self.start) // CHUNK + 1) * CHUNK
            if following > end and end != final_at:
                break
            self._advance_to(min(following, end))
        return answers

    def _ends(self, at: int) -> bool:
        """Whether only the end is left. If a chunk ends there too, its answer comes first, since
        the session may have had it before it decided."""
        on_grid = (at - self.start) % CHUNK == 0
        return at < self.position or (at == self.position and not (on_grid and at > self._answered))

    def _advance_to(self, position: int) -> None:
        speaking = self.speech_buffer.spoken
        self._speech += self.speech_buffer.advance(position)
        if self.speech_buffer.spoken > speaking:
            self.evidence = None

    def _answer(self) -> StepResult:
        self._answered = self.position
        decoded = self.position if self._covered() else self.decoded
        return self._result(self.position, self.words(), decoded)

    def _result(self, position: int, words: tuple[Word, ...], decoded: int) -> StepResult:
        speech, self._speech = self._speech, ()
        silence = self.speech_buffer.silence / SAMPLE_RATE
        ends = 0.0 if self.evidence is None else likelihood(self.evidence, silence)
        return StepResult(
            position, speech, words, decoded, ends, self.language.name, self.language.confidence
        )  # fmt: skip

    def _covered(self) -> bool:
        """Whether all the speech so far is in the newest hypothesis."""
        end = self.speech_buffer.speech_end
        return end is None or self.decoded >= min(self.position, end + HANG)

    def _settled(self) -> bool:
        """Whether the last speech has ended and is in a hypothesis that was due."""
        end = self.speech_buffer.speech_end
        return end is not None and any(
            mark.stands and mark.end >= end + RINGING for mark in self._marks
        )

    def _pause_reached(self) -> bool:
        end = self.speech_buffer.speech_end
        reached = self.speech_buffer.silence >= self.options.pause
        return reached and self._estimated_for != end and self._settled()

    @property
    def closing(self) -> float | None:
        """Log probability of the mark that ends the text as a sentence, if one does."""
        words = self.words()
        if not words or not ends_sentence(words[-1].text):
            return None
        return self.pending[-1].closing if self.pending else 0.0

    def set_evidence(self, evidence: float) -> None:
        """``evidence``: that the speaker, who has paused, has finished."""
        self._estimated_for, self.end_of_turn_due = self.speech_buffer.speech_end, False
        self.evidence = evidence

    def _commit_at_rest(self) -> None:
        """After a rest all words are final; without speech only ``LEAD`` is kept."""
        speech_buffer = self.speech_buffer
        resting = speech_buffer.speech_end is None
        if not resting:
            if speech_buffer.silence < max(REST, self.options.pause + SETTLE):
                return
            if not self._settled() and speech_buffer.spoken >= LEAST_SPEECH:
                return
            self._commit(len(self.pending))
            self._hypotheses, self.pending = [], []
            self.language.begin_afresh()
            self._keep_language(self.position)
            speech_buffer.begin_afresh()
        self._begin_at(max(self.origin, self.position - LEAD), again=resting)

    # -- deciding ------------------------------------------------------------------------------

    def _due_here(self, interval: int) -> Due | None:
        """The decode without which this position has no answer."""
        speech_buffer = self.speech_buffer
        if speech_buffer.speech_end is None or speech_buffer.spoken < LEAST_SPEECH:
            return None
        if speech_buffer.silence >= SETTLE:
            end = speech_buffer.speech_end + RINGING
            return None if self._settled() else Due(Kind.SETTLED, self.origin, end)
        if self._detects() and self.language.due(speech_buffer.spoken):
            return Due(Kind.LANGUAGE, self.origin, self.position)
        if self.position - self.origin >= self._excerpts.crowded:
            return Due(Kind.CROWDED, self.origin, self.position)
        if self._partial_due(interval * STEP * self._excerpts.steps):
            return Due(Kind.PARTIAL, self.origin, self.position)
        return None

    @property
    def _finality(self) -> Finality:
        return finality.BY_MODE[self.options.mode]

    @property
    def _excerpts(self) -> Excerpts:
        return excerpts.TENTATIVE if self.options.tentative else excerpts.LIVE

    def _detects(self) -> bool:
        return self.multilingual and not self.options.language

    def _partial_due(self, step: int) -> bool:
        """A decode at a pause stands for the next on the grid if that is close."""
        speech_buffer, position = self.speech_buffer, self.position
        if speech_buffer.spoken < FIRST_PARTIAL or speech_buffer.silence >= HANG:
            return False
        grid = self.start + (position - self.start) // step * step
        # The hypotheses that made the last final word so are wanted again, and their positions
        # depend on the one before.
        needed = (self._finality.most - 1) * step
        if position < self.taken_over and grid < self.taken_over - needed:
            return False
        return grid > max(self.decoded + step // 2, self.origin)

    def _due_at_end(self, at: int) -> Due | None:
        if self._ending is not None:
            return None
        self.language = self._languages[_index_at(self._languages, at)][1]
        origin = self._origins[_index_at(self._origins, at)][1]
        speech_until = self.speech_buffer.speech_until(at)
        if speech_until is None or speech_until <= origin:
            return None
        end = min(at, speech_until + RINGING)
        mark = self._mark_at(at)
        return None if mark and mark.end >= end else Due(Kind.FINAL, origin, end)

    def _mark_at(self, at: int) -> _Mark | None:
        """The newest decode before ``at`` that stands, if nothing was said since."""
        marks = [mark for mark in self._marks if mark.stands and mark.end <= at]
        if marks and not self.speech_buffer.voiced(marks[-1].end, at).any():
            return marks[-1]
        return None

    def samples(self, due: Due) -> Samples:
        return self.speech_buffer.samples(due.begin, due.end)

    def draft(self, due: Due) -> tuple[int, ...]:
        """What the last decode before it found in the same audio."""
        words = next((mark.words for mark in reversed(self._marks) if mark.end <= due.end), ())
        return tuple(
            token for spoken in words if spoken.word.start >= due.begin for token in spoken.tokens
        )

    # -- hypotheses ----------------------------------------------------------------------------

    def detected(self, language: str, confidence: float) -> None:
        """Take the language that a decode found."""
        assert self.due is not None
        if self.due.kind is Kind.PARTIAL:
            self.language.guessed(language, confidence)
        else:
            self.language.found(language, confidence, self.speech_buffer.spoken)

    def _keep_language(self, position: int) -> None:
        self._languages.append((max(position, self._languages[-1][0]), evolve(self.language)))
        del self._languages[: _index_at(self._languages, self.position - BACK)]

    def apply(self, hypothesis: Sequence[DecodedWord], *, reliable: bool) -> None:
        """Take the words of the decode. ``reliable``: the decoder ended them by itself."""
        assert self.due is not None
        due, words = self._first_part or (self.due, [])
        words, begin = [*words, *hypothesis], left_out(hypothesis, due.end, self.speech_buffer)
        if begin is not None:
            self._first_part, self.due = (due, words), Due(due.kind, begin, due.end, continues=True)
            return
        self.due = self._first_part = None
        mark = _Mark(due.begin, due.end, tuple(words), due.kind is not Kind.PARTIAL)
        if due.kind is Kind.FINAL:
            self._ending = mark
            return
        self._marks = [one for one in self._marks if one.end > self.position - BACK]
        self._marks.append(mark)
        self._hypotheses = [*self._hypotheses[1 - finality.MOST :], mark]
        self.pending = self._in_speech(self._after_committed(mark), self.committed)
        self.decoded = due.end
        known = self.language.settled or not self._detects()
        if reliable and known and not self.options.tentative:
            self._commit(self._agreed(due.end))
        if mark.stands:
            self._keep_language(mark.end)
            self._trim(mark)

    def _agreed(self, end: int) -> int:
        """How many of the pending words are final now."""
        # Silence is no further evidence: what counts is how much more speech there was.
        speech_end = self.speech_buffer.speech_end
        spoken_until = end if speech_end is None else min(end, speech_end)
        rule = self._finality
        before = [
            [spoken.key for spoken in self._after_committed(mark)] for mark in self._hypotheses[:-1]
        ]
        count = 0
        for index, spoken in enumerate(self.pending):
            wanted = rule.wanted(spoken.word.confidence) - 1
            agree = sum(keys[index : index + 1] == [spoken.key] for keys in before[-wanted:])
            follows = rule.follows(spoken.word.confidence, first=not (index or self.committed))
            if agree < wanted or spoken.word.end > spoken_until - follows:
                break
            count = index + 1
        return count

    def _commit(self, count: int) -> None:
        """These words are final. As long as the segment is where it was before it was taken over,
        those that were are known."""
        if self.position <= self.taken_over or count == 0:
            return
        for spoken in self.pending[:count]:
            self.committed.append(evolve(spoken.word, final=True))
            self._committed_at.append(self.position)
        rest = self._after_committed(self._hypotheses[-1])
        self.pending = self._in_speech(rest, self.committed)

    def _after_committed(self, mark: _Mark) -> list[DecodedWord]:
        return after(mark.words, self.committed, mark.begin)

    def _in_speech(
        self, words: Sequence[DecodedWord], committed: Sequence[Word]
    ) -> list[DecodedWord]:
        floor = committed[-1].end if committed else self.start
        return in_speech(words, floor, self.speech_buffer)

    # -- forgetting ----------------------------------------------------------------------------

    def _trim(self, mark: _Mark) -> None:
        """Cut where what was due says that earlier words are done. It depends on nothing else."""
        cut = self._excerpts.cut(mark.begin, mark.end, mark.words, self.speech_buffer)
        if cut is None:
            return
        self._commit(sum(spoken.word.start + spoken.word.end <= 2 * cut for spoken in self.pending))
        self._begin_at(cut)

    def _begin_at(self, origin: int, *, again: bool = False) -> None:
        """Decodes begin here from now on. ``again``: nothing was said since they last moved."""
        since = self._origins.pop()[0] if again else self.position
        self._origins.append((since, origin))
        del self._origins[: _index_at(self._origins, self.position - BACK)]
        self.speech_buffer.forget(self._origins[0][1])

    # -- answers -------------------------------------------------------------------------------

    def words(self) -> tuple[Word, ...]:
        return (*self.committed, *(spoken.word for spoken in self.pending))

    def _final_words(self, at: int) -> tuple[Word, ...]:
        """Every word up to ``at``, final: those that the client may have as such, and what the
        decode that stands says after them."""
        speech_until = self.speech_buffer.speech_until(at)
        decided = at
        if speech_until is not None and at - speech_until >= RINGING:
            # A silence that was found long enough at its end, and cut in its middle.
            decided += min(at - speech_until, BOUNDARY_BACK)
            decided = max(at, min(decided, self.speech_buffer.silent_until(at)))
        count = bisect_right(self._committed_at, decided)
        committed = [word for word in self.committed[:count] if word.start < at]
        mark = self._ending or self._mark_at(at)
        rest = [] if mark is None else after(mark.words, committed, mark.begin)
        words = (spoken.word for spoken in self._in_speech(rest, committed))
        return (*committed, *(evolve(word, final=True) for word in words if word.start < at))


def _index_at(entries: Sequence[tuple[int, object]], at: int) -> int:
    """Of the entry that holds at ``at``; they hold from their positions on."""
    return max(0, bisect_right(entries, at, key=lambda entry: entry[0]) - 1)
