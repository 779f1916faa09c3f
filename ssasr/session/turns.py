"""The turn policy of one session: when a turn ends, and what the client is sent meanwhile.

Engine answers go in; messages for the client and ``Finalize`` requests come out. There is no clock:
every decision is a function of the updates, finals and forced ends *by their positions in the
stream*, not of when they arrive. That is why a client cannot notice a replay on another engine.

A turn is a segment. It ends in three steps: the policy decides on a boundary and asks for it
(``Finalize(k, at)``); further updates of segment k are stale and ignored; ``Final(k)`` brings the
last words, the Turn with ``end_of_turn`` is sent, and segment k + 1 starts at the boundary. A final
without words sends nothing and does not count as a turn.

A forced end at ``at`` may come before the engine has processed the audio up to ``at``. It waits for
the update of the last step before ``at``, so that a silence that ends the turn earlier takes
effect first, whichever of the two arrives first.
"""

import bisect
from collections import deque
from collections.abc import Sequence
from typing import TypedDict

from ssasr.protocol.joining import join
from ssasr.protocol.messages import (
    EndpointReached,
    Silence,
    SpeakerRevision,
    SpeechStarted,
    SpeechStopped,
    Turn,
)
from ssasr.protocol.recognition import SAMPLE_RATE, Final, Finalize, Update
from ssasr.protocol.settings import SHORTEST_PAUSE, TurnSettings
from ssasr.protocol.speech_models import Family
from ssasr.protocol.values import value
from ssasr.session.rewriting import Rewrite, Rewriting
from ssasr.session.segment import Segment
from ssasr.session.speakers.labels import SpeakerLabels
from ssasr.session.transcript import Transcript, probability

SILENCE_REPORT = SAMPLE_RATE
"""``acknowledge_silence``: how often silence is reported while it lasts."""


@value
class Send:
    """Send this to the client."""

    message: Turn | SpeechStarted | SpeechStopped | SpeakerRevision | Silence | EndpointReached


Decision = Send | Finalize


class _Language(TypedDict, total=False):
    language_code: str
    language_confidence: float


class TurnPolicy:
    """The policy of one session. ``chunk``: samples between two of the engine's steps;
    ``speakers``: assigns words to speakers, in a session that asks for it."""

    def __init__(
        self, settings: TurnSettings, *, chunk: int, speakers: SpeakerLabels | None = None
    ) -> None:
        self._settings = settings
        self._speakers = speakers
        self._chunk = chunk
        self._segment = Segment(0, 0)
        self._transcript = Transcript()
        self._rewriting = Rewriting()
        self._turn_sent = False  # a partial of the turn that is open; outlives a wordless segment
        self._forces: list[int] = []  # ascending
        self._changes: deque[tuple[int, TurnSettings]] = deque()
        self._silence_start: int | None = None
        self._silence_reported = 0

    # -- what the session may ask ------------------------------------------------------------------

    @property
    def in_turn(self) -> bool:
        """Whether there were words or speech since the last end of a turn."""
        return self._segment.in_turn

    def settled(self, at: int) -> bool:
        """Whether everything before stream sample ``at`` is final and has been sent."""
        return self._segment.start >= at

    # -- inputs ------------------------------------------------------------------------------------

    def configure(self, settings: TurnSettings, at: int = 0) -> None:
        """Use new settings from stream sample ``at`` on; without ``at``, from the next update."""
        if self._changes and self._changes[-1][0] == at:
            self._changes.pop()  # replaced before there was audio for it
        self._changes.append((at, settings))

    def force(self, at: int) -> Sequence[Finalize]:
        """End the turn at stream sample ``at``, which must not lie beyond the audio sent.
        ``settled(at)`` becomes true, now or after further updates and finals."""
        if at > self._segment.start and at not in self._forces:
            bisect.insort(self._forces, at)
        return self._act_on_force()

    def update(self, update: Update) -> Sequence[Decision]:
        """The decisions that follow from an update. Updates of another segment, repeated ones
        (after a replay) and those of a segment that is being finalized are ignored."""
        segment = self._segment
        if update.segment != segment.number:
            return []
        changed = self._take_voices(update) if update.voices else False
        if segment.ending is not None:
            return []
        if (update.position, update.decoded) <= (segment.position, segment.decoded):
            return []
        self._change_settings(update.position)
        if self._forces and update.position > self._forces[0]:
            # The engine took several chunks at once; what lies after the forced end belongs to the
            # next segment.
            return self._finalize(self._forces[0])
        segment.update(update, self._settings.vad_threshold)
        if self._speaks_on(update):
            return []
        self._transcript.update(update.words, self._rewrite(update))
        segment.update_words(self._transcript)
        family_u = self._settings.family is Family.U
        decisions = self._update_u(update) if family_u else self._update_p(update)
        if changed and not (family_u or segment.ending):
            decisions += self._end_by_speaker(update)
        decisions += self._acknowledge_silence()
        return decisions if segment.ending else [*decisions, *self._act_on_force()]

    def final(self, final: Final) -> Sequence[Decision]:
        """The end of the turn, if there was one, and the next segment."""
        segment = self._segment
        if segment.ending is None or final.segment != segment.number:
            return []  # repeated by an engine that took over
        if self._speakers is not None:
            self._speakers.update(final.voices)
        rewrite = self._rewrite(final)
        if segment.cut_back or (rewrite and self._settings.family is Family.P):
            self._transcript.forget()
        self._transcript.update(final.words, rewrite)
        decisions = self._end_of_turn(final) if self._transcript.any_words else []
        start = segment.ending.at
        stopped = self._speech_stopped(start)
        self._segment = Segment(segment.number + 1, start)
        self._transcript.next_segment(turn_ended=bool(decisions))
        return [*decisions, *stopped, *self._revision(start), *self._act_on_force()]

    def conclude(self) -> list[Decision]:
        """What is said once every turn has ended: the last revision of speakers."""
        return self._revision()

    # -- speakers ----------------------------------------------------------------------------------

    def _take_voices(self, update: Update) -> bool:
        """Take the voices of windows that end within the turn; whether there were any. Later ones
        will be sent again with the next segment."""
        until = update.position
        if self._segment.ending is not None:
            until = self._segment.ending.at
        elif self._forces:
            until = min(until, self._forces[0])
        windows = [window for window in update.voices if window.end <= until]
        if self._speakers is None or not windows:
            return False
        self._speakers.update(windows)
        return True

    def _end_by_speaker(self, update: Update) -> Sequence[Decision]:
        """Family P: a turn ends where another speaker begins, between two words."""
        assert self._speakers is not None, "voices come only if the session asks for speakers"
        at = self._speakers.end_between(update.words, self._segment.start, update.position)
        if at is None:
            return []
        self._segment.confidence = update.end_of_turn_confidence
        self._segment.cut_back = True
        return self._finalize(at)

    def _revision(self, position: int | None = None) -> list[Decision]:
        """Of speakers; with a ``position``, only if one is due there."""
        if self._speakers is None:
            return []
        interval = self._settings.revision_interval
        if position is None:
            revision = self._speakers.revise()
        else:
            revision = self._speakers.revise_if_due(position, interval)
        return [] if revision is None else [Send(revision)]

    def _speaks_on(self, update: Update) -> bool:
        """Whether the update needs no decision because speech goes on without new words: a short
        cut past all other checks."""
        segment = self._segment
        if not segment.activity.speaking or not self._transcript.is_known(update.words):
            return False
        self._silence_start = None
        if self._forces or self._onset_due or self._settings.family is not Family.U:
            return False
        return not segment.ends_by_length(self._settings, self._transcript, SHORTEST_PAUSE)

    # -- decisions ---------------------------------------------------------------------------------

    def _change_settings(self, position: int) -> None:
        while self._changes and self._changes[0][0] < position:
            self._settings = self._changes.popleft()[1]

    def _act_on_force(self) -> Sequence[Finalize]:
        segment = self._segment
        while self._forces and self._forces[0] <= segment.start:
            self._forces.pop(0)
        if segment.ending or not self._forces or segment.position <= self._forces[0] - self._chunk:
            return []
        return self._finalize(self._forces[0])

    def _finalize(self, at: int) -> Sequence[Finalize]:
        self._segment.ending = Finalize(self._segment.number, at)
        return [self._segment.ending]

    def _update_u(self, update: Update) -> list[Decision]:
        """Words as they come; an utterance at a pause; the end."""
        decisions: list[Decision] = self._speech_started() if self._onset_due else []
        ends = self._decided_end(update)
        utterance = ""
        if self._settings.partials and not ends and self._is_new_pause():
            utterance = self._transcript.new_utterance(formatted=self._settings.always_formatted)
        changed = self._transcript.take_change()
        if self._settings.partials and (changed or utterance):
            if self._settings.announce_speech:
                decisions += self._speech_started()
            decisions.append(Send(self._partial(update, utterance)))
        return [*decisions, *ends]

    def _update_p(self, update: Update) -> list[Decision]:
        """SpeechStarted at the onset; partials at pauses, early, and now and then; the end."""
        decisions: list[Decision] = []
        segment = self._segment
        if segment.activity.onset_confirmed:
            decisions += self._speech_started()
        if ends := self._decided_end(update):
            return [*decisions, *ends]
        due = self._is_new_pause() or segment.is_partial_due(self._settings)
        if due and segment.words and self._settings.partials and self._transcript.take_change():
            decisions += self._speech_started()
            segment.first_partial_at = update.position
            decisions.append(Send(self._partial(update, "")))
        return decisions

    def _is_new_pause(self) -> bool:
        return self._segment.take_new_pause(self._settings.min_turn_silence)

    def _decided_end(self, update: Update) -> Sequence[Finalize]:
        """The finalize that what has been seen calls for, if any."""
        at = self._segment.end(self._settings, update, self._transcript)
        return [] if at is None else self._finalize(at)

    # -- messages ----------------------------------------------------------------------------------

    @property
    def _onset_due(self) -> bool:
        """U: speech is to be announced, and has not been."""
        segment = self._segment
        wanted = self._settings.announce_speech and segment.activity.onset_confirmed
        return wanted and not segment.started

    def _speech_stopped(self, at: int) -> list[Decision]:
        """What was announced is over, whether it was a turn or not."""
        if not self._segment.started or self._settings.family is Family.P:
            return []
        self._turn_sent = False
        return [Send(SpeechStopped(self._transcript.milliseconds(at)))]

    def _speech_started(self) -> list[Decision]:
        """Once a segment, and not within a turn that has been shown already."""
        if self._segment.started or self._turn_sent:
            return []
        self._segment.started = True
        start = self._segment.begin_of_speech(self._transcript)
        confidence = probability(self._segment.activity.loudest)
        return [Send(SpeechStarted(self._transcript.milliseconds(start), confidence))]

    def _partial(self, update: Update, utterance: str) -> Turn:
        self._turn_sent = True
        settings = self._settings
        p = settings.family is Family.P
        formatted = settings.always_formatted
        transcript = self._transcript
        words = transcript.words(formatted=formatted or settings.written, finality=not p)
        return Turn(
            turn_order=transcript.turn_order,
            turn_is_formatted=formatted and not p,
            end_of_turn=False,
            transcript=join([word.text for word in words]) if p else transcript.final_text,
            utterance=utterance,
            end_of_turn_confidence=0.0 if p else probability(update.end_of_turn_confidence),
            words=words,
            **self._language(update, shown=bool(utterance)),
        )

    def _end_of_turn(self, final: Final) -> list[Decision]:
        settings, transcript = self._settings, self._transcript
        p = settings.family is Family.P
        formatted = settings.always_formatted or settings.format_turns
        words = transcript.finish(formatted=formatted or settings.written)
        text = join(word.text for word in words)
        decided = self._segment.confidence
        confidence = final.end_of_turn_confidence if decided is None else decided
        turn = Turn(
            turn_order=transcript.turn_order,
            turn_is_formatted=formatted,
            end_of_turn=True,
            transcript=text,
            utterance=text if p else transcript.new_utterance(formatted=formatted),
            end_of_turn_confidence=1.0 if p else probability(confidence),
            words=words,
            speaker_label="UNKNOWN" if settings.speaker_labels else None,
            **self._language(final, shown=True),
        )
        if self._speakers is not None:
            turn = self._speakers.label(turn)
        before = self._speech_started() if p or settings.announce_speech else []
        self._turn_sent = False
        return [*before, Send(turn)]

    def _acknowledge_silence(self) -> list[Decision]:
        """The silent stretch so far, about once a second, if the client wants to know."""
        position = self._segment.position
        if self.in_turn or self._segment.activity.speaking:
            self._silence_start = None
            return []
        if self._silence_start is None:
            begin = self._segment.speech_until or self._segment.start
            self._silence_start = self._silence_reported = begin
        wanted = self._settings.acknowledge_silence
        if not wanted or position - self._silence_reported < SILENCE_REPORT:
            return []
        self._silence_reported = position
        span = map(self._transcript.milliseconds, (self._silence_start, position))
        return [Send(Silence(*span))]

    def _rewrite(self, answer: Update | Final) -> Rewrite | None:
        return self._rewriting.of(self._settings, answer.language)

    def _language(self, answer: Update | Final, *, shown: bool) -> _Language:
        if not (shown and self._settings.language_detection) or answer.language is None:
            return {}
        confidence = probability(answer.language_confidence)
        return {"language_code": answer.language, "language_confidence": confidence}
