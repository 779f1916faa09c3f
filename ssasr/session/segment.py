"""The open segment of a session: what has been seen of it, and the rules by which it ends.

Pure. Positions and durations are in stream samples.
"""

from attrs import define, field

from ssasr.protocol.recognition import BOUNDARY_BACK, SAMPLE_RATE, Finalize, Update
from ssasr.protocol.settings import SHORTEST_PAUSE, TurnSettings
from ssasr.protocol.speech_models import Family
from ssasr.protocol.text import ends_sentence
from ssasr.session.speech_activity import SpeechActivity
from ssasr.session.transcript import Transcript

SHORTEST_SPEECH = SAMPLE_RATE * 80 // 1_000
"""Less speech than this does not make a turn end by its meaning."""
LONG_NON_SPEECH = 10 * SAMPLE_RATE
"""After this much without speech or words the audio is dropped, so that a replay stays short."""
KEPT_NON_SPEECH = SAMPLE_RATE
"""What is kept of it: the onset of a word must not be cut."""
LONGEST_SEGMENT = 300 * SAMPLE_RATE
"""Then a turn is ended at the next gap, however short: every Turn repeats all the words so far, and
a message must stay far below a client's limit of 1 MiB, as must a replay below its own."""
LONGEST_WITHOUT_GAP = 330 * SAMPLE_RATE
"""And then even without a gap (music, a crowd)."""
GAP_SOUGHT = 8
"""A turn that has its longest duration but for this part of it ends at the next gap: a word that is
cut in two is lost."""
CONTINUOUS_PARTIAL = SAMPLE_RATE
"""Family P: a partial about this often while somebody speaks on."""
NEVER = 1.0
"""A threshold at which only ``max_turn_silence`` ends a turn, however confident the model is."""


@define
class Segment:
    """What belongs to one segment and is gone with it."""

    number: int
    start: int
    activity: SpeechActivity = field(init=False)
    position: int = field(init=False)
    """Of the newest update."""
    decoded: int = -1
    """The newest update's words cover the audio up to here."""
    paused_after: int | None = None
    """End of the speech whose pause has had its partial (P) or utterance (U)."""
    first_partial_at: int | None = None
    """P: position of the last partial of the turn."""
    started: bool = False
    """SpeechStarted has been sent."""
    words: bool = False
    ending: Finalize | None = None
    """What the engine was asked for; from then on only its answer counts."""
    cut_back: bool = False
    """P: it ends where another speaker began, and words after that were received as final."""
    speech_until: int | None = None
    """Where the last speech ended; by the words if the voice detector never fired."""
    silence: int = 0
    """Samples since then, 0 while there is speech."""
    confidence: float | None = None
    """Where silence was decided to end the turn. The final's own is that of an engine which may
    have listened further by now, how far depends on the moment."""

    def __attrs_post_init__(self) -> None:
        self.position = self.start
        self.activity = SpeechActivity(self.start)

    @property
    def in_turn(self) -> bool:
        """Whether there were words or speech."""
        return self.words or self.activity.speech >= SHORTEST_SPEECH

    @property
    def is_decoded(self) -> bool:
        """Whether the words and the confidence cover the last speech."""
        return self.speech_until is not None and self.decoded >= self.speech_until

    def begin_of_speech(self, transcript: Transcript) -> int:
        """Where its speech began; by the words if the voice detector never fired."""
        onset = self.activity.onset
        return transcript.first_start if onset is None else onset

    # -- what is seen ------------------------------------------------------------------------------

    def update(self, update: Update, threshold: float) -> None:
        """``threshold``: probability from which a frame is speech."""
        self.position, self.decoded = update.position, update.decoded
        self.activity.update(update.position, update.speech, threshold)

    def update_words(self, transcript: Transcript) -> None:
        """``transcript`` has been updated; see how long it has been silent by now."""
        self.words = transcript.any_words
        speech_end, spoken = self.activity.speech_end, transcript.last_end
        if speech_end is None and spoken is not None:
            speech_end = max(spoken, self.start)
        self.speech_until, self.silence = speech_end, 0
        if speech_end is not None and not self.activity.speaking:
            self.silence = max(self.position - speech_end, 0)

    def take_new_pause(self, shortest: int) -> bool:
        """Whether a pause of ``shortest`` has been reached, and decoded, that was not there when
        last asked."""
        if self.silence < shortest or not self.is_decoded:
            return False
        new = self.speech_until != self.paused_after
        self.paused_after = self.speech_until
        return new

    def is_partial_due(self, settings: TurnSettings) -> bool:
        """P: whether a partial is due without a pause: the first one early, and then, if the client
        wants them, about once a second while somebody speaks on."""
        if self.first_partial_at is not None:
            waited = self.position - self.first_partial_at >= CONTINUOUS_PARTIAL
            return settings.continuous_partials and self.activity.speaking and waited
        onset = self.activity.onset
        return onset is not None and self.position - onset >= settings.interruption_delay

    # -- where it ends -----------------------------------------------------------------------------

    def end(self, settings: TurnSettings, update: Update, transcript: Transcript) -> int | None:
        """The position at which the segment is to end by what has been seen up to ``update``;
        None: it goes on."""
        if (
            self._ends_by_meaning(settings, update, transcript)
            or self._ends_by_silence(settings)
            or self.ends_by_length(settings, transcript, self.silence)
        ):
            self.confidence = update.end_of_turn_confidence
            return update.position - min(self.silence // 2, BOUNDARY_BACK)
        if self.words or self.activity.speaking:
            return None
        quiet = update.position - (self.start if self.speech_until is None else self.speech_until)
        return None if quiet < LONG_NON_SPEECH else update.position - KEPT_NON_SPEECH

    def _ends_by_meaning(
        self, settings: TurnSettings, update: Update, transcript: Transcript
    ) -> bool:
        if self.silence < settings.min_turn_silence or not self.words or not self.is_decoded:
            return False
        if self.activity.speech < SHORTEST_SPEECH:
            return False
        if settings.family is Family.P and not ends_sentence(transcript.last_text):
            return False
        return settings.threshold <= update.end_of_turn_confidence and settings.threshold < NEVER

    def _ends_by_silence(self, settings: TurnSettings) -> bool:
        """Speech that was decoded and gave no words (a cough) ends nothing; speech that was not
        decoded yet may hold words, and the final will tell."""
        if self.silence < settings.max_turn_silence:
            return False
        undecoded = self.activity.speech >= SHORTEST_SPEECH and not self.is_decoded
        announced = self.started and settings.announce_speech
        return self.words or undecoded or announced

    def ends_by_length(self, settings: TurnSettings, transcript: Transcript, silence: int) -> bool:
        length = self.position - self.start
        gap = silence >= SHORTEST_PAUSE
        if length >= LONGEST_WITHOUT_GAP or (length >= LONGEST_SEGMENT and gap):
            return True
        longest = settings.max_turn_duration
        if longest is None or not self.in_turn:
            return False
        duration = self.position - self.begin_of_speech(transcript)
        return duration >= longest or (gap and duration >= longest - longest // GAP_SOUGHT)
