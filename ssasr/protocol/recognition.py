"""The messages between a session and its engine, by whatever transport.

Stream time is an integer count of samples at 16 kHz from the first sample of the session.
A stream is a chain of *segments*: segment 0 starts at the stream's first sample;
``Finalize(k, at)`` ends segment k at sample ``at``, and segment k+1 starts there **with fresh model
state**. The answers about segment k+1 therefore depend only on the options, the audio from ``at``
on and the language spoken before it, which makes a replay on another engine exact.

An engine processes the audio in steps on a fixed grid, ``chunk`` samples apart, counted from the
start of the segment, and answers in order of position. It may be ahead of the session: if it has
already stepped past ``at``, it goes back. Updates of segment k that it sent before it read the
``Finalize`` are stale, and the session drops them.
"""

from collections.abc import Collection

from attrs import evolve, field, frozen

from ssasr.protocol.values import value
from ssasr.protocol.voices import Voices

SAMPLE_RATE = 16_000
SURE_LANGUAGE = 0.8
"""Confidence from which a detected language is taken as the spoken one."""
VAD_FRAME = 512
"""Samples in one speech-probability frame (Silero VAD's frame at 16 kHz, 32 ms)."""
SPEECH_THRESHOLD = 0.5
"""Speech probability at which a frame counts as speech (Silero's own default). A lower one saves
first words of quiet speech (``benchmarks/speech_threshold``), but with ``HYSTERESIS`` it also moves
where pauses are found, and what that does to ends of turns in noise was not measured."""
HYSTERESIS = 0.15
"""Speech goes on until the probability falls this far below the threshold: the distance that
Silero's own segmentation uses."""
LOWEST_THRESHOLD = 0.01
"""A threshold of 0 would make everything speech and no turn would ever end."""
BOUNDARY_BACK = 2_560
"""A silence is cut in its middle, but at most this many samples (160 ms) before the position at
which it was found long enough: within the silence, so that the onset of the next word belongs to
the next segment. The client may have been sent words up to that position."""


def speech_floor(threshold: float, *, speaking: bool) -> float:
    """The probability from which a frame is speech: lower where the frame before was speech."""
    return max(threshold - HYSTERESIS, LOWEST_THRESHOLD) if speaking else threshold


@frozen
class Word:
    """One recognised word. ``start`` and ``end`` are stream samples; ``text`` carries the model's
    own casing and punctuation and no outer spaces."""

    text: str
    start: int
    end: int
    confidence: float
    final: bool = False


@frozen
class StreamOptions:
    """The options of a stream; immutable, replaced as a whole by ``Configure``."""

    languages: tuple[str, ...] = ()
    """ISO 639 codes of the languages that may be spoken. The model detects which of several it is;
    without any, among all that it knows. Codes that it does not know are ignored."""
    pause: int = 6_400
    """Samples of silence after speech at which the engine decodes all speech so far and estimates
    whether the speaker has finished, so that both are known when the session asks."""
    keyterms: tuple[str, ...] = ()
    vad_threshold: float = SPEECH_THRESHOLD
    """Speech probability from which a frame is speech, and is decoded."""
    speakers: bool = False
    """Answer with speakers too (``protocol.voices``), if the engine can."""
    tentative: bool = False
    """No word needs to be final before the segment ends, because the session shows them all as
    tentative. An engine may then decode the segment as a whole."""
    offline: bool = False
    """Nobody listens live: words are wanted only at the end of each segment, of all its audio at
    once, in the background of whoever does. The session makes segments of half a minute at most."""
    translate: bool = False
    """Into English; only of an engine that ``Opened`` says it of."""
    prompt: str = field(default="", repr=False)
    """A text of the same kind, which the words may be taken to follow: its style, its names. Only
    Whisper has a place for one, and only where a segment is decoded as a whole (``offline``)."""
    mode: str | None = None
    """How sure a word must be before it is final, in the words of ``modes``; None: as usual. It
    makes no difference where words are tentative."""
    names: tuple[str, ...] = field(default=(), repr=False)
    """Weaker key terms: names that were mentioned before."""

    @property
    def language(self) -> str | None:
        """The language if there is just one; None: the model's own, or to be detected."""
        return self.languages[0] if len(self.languages) == 1 else None

    def known(self, languages: Collection[str]) -> "StreamOptions":
        """The same options without the languages that are not in ``languages``."""
        kept = tuple(code for code in self.languages if code in languages)
        return self if kept == self.languages else evolve(self, languages=kept)


# -- session to engine ---------------------------------------------------------------------------


@frozen
class Open:
    """First message of a stream. A replayed stream opens where its open segment began, and
    ``committed`` are that segment's words which the client has already been given as final: the
    engine keeps them as they are and goes on after them. ``committed_at`` is the position of the
    update that brought the last of them: no other word was final then. ``language_before``: see
    ``language_after``. ``context``: the audio begins so many samples before ``start``; it has been
    answered, and is there for windows that reach back (``voices``)."""

    session_id: str
    options: StreamOptions
    segment: int = 0
    start: int = 0
    committed: tuple[Word, ...] = ()
    committed_at: int = 0
    language_before: str | None = None
    context: int = 0


@value
class Audio:
    """Little-endian signed 16-bit mono PCM at 16 kHz; ``start`` is the position of its first
    sample and always continues where the last message ended."""

    start: int
    pcm: bytes


@frozen
class Configure:
    """New options, from the next audio on."""

    options: StreamOptions


@frozen
class Finalize:
    """End segment ``segment`` at sample ``at``: answer with ``Final``. ``at`` may lie ahead of the
    audio already stepped through (never ahead of the audio sent) or behind it."""

    segment: int
    at: int


ToEngine = Audio | Configure | Finalize


# -- engine to session ---------------------------------------------------------------------------


@frozen
class Opened:
    """The stream is admitted."""

    model: str
    chunk: int
    """Samples between two steps."""
    engine: str = ""
    speakers: bool = False
    """Whether it says who speaks when to a stream that asks for it."""
    translates: bool = False


@value
class Route:
    """Who answers a stream, as far as its session can know."""

    engine: str = ""
    """Its name; none before the stream was opened."""
    address: str = ""
    """None in the same process."""
    moves: int = 0
    """How often it was another one before."""


@value
class Update:
    """The result of one step. Every sample of the segment before ``position`` has been
    processed."""

    segment: int
    position: int
    speech: tuple[float, ...]
    """Speech probability of each ``VAD_FRAME`` completed since the last update; frames are counted
    from the start of the segment."""
    words: tuple[Word, ...]
    """The whole segment so far. Final words come first and never change, move or go away."""
    decoded: int
    """``words`` and ``end_of_turn_confidence`` reflect the audio up to here (<= position)."""
    end_of_turn_confidence: float = 0.0
    language: str | None = None
    language_confidence: float = 0.0
    voices: tuple[Voices, ...] = ()
    """Every window that ends after the last update and up to ``position``, in their order."""


@value
class Final:
    """The answer to ``Finalize``: the segment's words, all final; the next segment starts at
    ``at``."""

    segment: int
    at: int
    words: tuple[Word, ...]
    end_of_turn_confidence: float = 0.0
    language: str | None = None
    language_confidence: float = 0.0
    voices: tuple[Voices, ...] = ()
    """As an update's, up to ``at``, where one more window ends."""


def language_after(
    before: str | None, words: tuple[Word, ...], language: str | None, confidence: float
) -> str | None:
    """The language spoken before the next segment, when a segment has ended with these words: the
    last one that was detected with confidence. Speakers mostly stay in it, and a segment of one
    word is too short to detect its language."""
    return language if words and confidence >= SURE_LANGUAGE else before


@frozen
class Draining:
    """The engine is going away; move the stream elsewhere. It goes on answering until then."""


FromEngine = Update | Final | Draining


def answer_weight(answer: FromEngine) -> int:
    """Approximate bytes of a waiting answer; words that do not change are shared between
    answers."""
    return 256 + 8 * len(answer.words) if isinstance(answer, Update | Final) else 256
