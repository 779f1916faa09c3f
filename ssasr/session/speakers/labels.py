"""Labels "A", "B" … for the words and turns of one session, and their revision. Pure.

The engine says in which windows which voices are active, and what they sound like (``protocol``'s
``voices``). Here it is decided whose they are: at once, as the turns end (``label``), and once more
from everything that is known by then (``revise``), which changes as few of the labels shown as it
can. Nothing depends on when anything arrives, and everything that is needed is kept here, so the
loss of an engine changes nothing.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import count

from attrs import define, evolve, field, frozen

from ssasr.protocol.messages import RevisedTurn, SpeakerRevision, Turn, TurnWord
from ssasr.protocol.recognition import SAMPLE_RATE, Word
from ssasr.protocol.voices import Voices
from ssasr.session.speakers.assignment import best_assignment
from ssasr.session.speakers.borders import TimedWord, speakers_of
from ssasr.session.speakers.clusters import OnlineClusters, Speakers
from ssasr.session.speakers.timeline import Attribution, Timeline

PENDING = "PENDING"
"""The label of a voice with too little speech."""
_PER_MS = SAMPLE_RATE // 1_000


def letter(number: int) -> str:
    """A to Z, AA, AB …"""
    text = ""
    number += 1
    while number:
        number, place = divmod(number - 1, 26)
        text = chr(ord("A") + place) + text
    return text


@frozen
class _Label:
    speaker: str = PENDING
    certainty: float | None = None


@define(eq=False)
class _Shown:
    """A turn as it was last sent, with the speaker of each of its words."""

    turn_order: int
    label: str
    words: tuple[TurnWord, ...]
    attribution: tuple[Attribution | None, ...]


@define(eq=False)
class SpeakerLabels:
    """``limit``: speakers at most."""

    limit: int | None = None
    _timeline: Timeline = field(init=False)
    _letters: dict[int, str] = field(factory=dict)
    """Of the speakers that were shown."""
    _turns: list[_Shown] = field(factory=list)
    _revised_at: int = 0
    """Stream sample at which a revision was last due."""

    def __attrs_post_init__(self) -> None:
        self._timeline = Timeline(OnlineClusters(self.limit))

    def update(self, windows: Sequence[Voices]) -> None:
        for window in windows:
            self._timeline.update(window)

    def change_after(self, start: int) -> int | None:
        """The stream sample after ``start`` at which another speaker begins; None: none does."""
        return self._timeline.change_after(start)

    def end_between(self, words: Sequence[Word], start: int, position: int) -> int | None:
        """Where, after stream sample ``start`` and at ``position`` at the latest, the speaker of
        ``words`` has ended, between two of them, because another one begins; None: nowhere."""
        change = self.change_after(start)
        if change is None:
            return None
        before = [word for word in words if word.start + word.end <= 2 * change]
        after = words[len(before) :]
        if not before:
            return None
        at = before[-1].end
        if after and after[0].start > at:
            at = (at + after[0].start) // 2
        return at if start < at <= position else None

    def label(self, turn: Turn) -> Turn:
        """A turn that has ended, with whose it and its words are."""
        attribution = tuple(
            self._timeline.of_word(word.start * _PER_MS, word.end * _PER_MS) for word in turn.words
        )
        labels = [
            _Label() if each is None else _Label(self._letter(each.speaker), each.certainty)
            for each in attribution
        ]
        words, label = _labelled(turn.words, labels)
        self._turns.append(_Shown(turn.turn_order, label, words, attribution))
        return evolve(turn, words=words, speaker_label=label)

    def _letter(self, speaker: int | None) -> str:
        if speaker is None:
            return PENDING
        return self._letters.setdefault(speaker, letter(len(self._letters)))

    def revise_if_due(self, position: int, interval: int | None) -> SpeakerRevision | None:
        """``revise``, if at ``position`` so many samples have passed since it was due last."""
        if interval is None or position - self._revised_at < interval:
            return None
        self._revised_at = position
        return self.revise()

    def revise(self) -> SpeakerRevision | None:
        """What all windows so far say about the turns that were shown: those that change.
        None: nothing does."""
        samples = self._timeline.samples
        found = Speakers.of(samples, self.limit)
        names = self._names(found.numbers)
        spoken = [
            TimedWord(word.start * _PER_MS, word.end * _PER_MS, number)
            for shown in self._turns
            for word, number in zip(shown.words, _numbers(shown.attribution), strict=True)
        ]
        each = zip(spoken, speakers_of(spoken, samples, found), strict=True)
        revisions = []
        for shown in self._turns:
            labels = [
                _Label(word.speaker or PENDING, word.speaker_confidence)
                if said.number is None or speaker is None
                else _Label(names[speaker], found.certainty(said.number, speaker))
                for word, (said, speaker) in zip(shown.words, each, strict=False)
            ]
            words, label = _labelled(shown.words, labels)
            before = [word.speaker for word in shown.words]
            if label != shown.label or before != [word.speaker for word in words]:
                shown.words, shown.label = words, label
                revisions.append(RevisedTurn(shown.turn_order, label, words))
        return SpeakerRevision(tuple(revisions)) if revisions else None

    def _names(self, speakers: Sequence[int]) -> dict[int, str]:
        """Letters for the speakers found anew, so that as many words as can be keep theirs."""
        common: Counter[tuple[int, str]] = Counter()
        for shown in self._turns:
            for each, word in zip(shown.attribution, shown.words, strict=True):
                if each is not None and each.number is not None and word.speaker != PENDING:
                    common[speakers[each.number], str(word.speaker)] += 1
        found = sorted(set(speakers))
        shown_letters = sorted({name for _, name in common})
        gains = [[common[speaker, name] for name in shown_letters] for speaker in found]
        names = {
            found[row]: shown_letters[column]
            for row, column in best_assignment(gains)
            if gains[row][column]
        }
        used = {*names.values()}
        fresh = (name for name in map(letter, count()) if name not in used)
        return {speaker: names.get(speaker) or next(fresh) for speaker in found}


def _numbers(attribution: Sequence[Attribution | None]) -> list[int | None]:
    """Of the embeddings of a turn's words; a word without one has that of the nearest word."""
    known = {
        place: each.number
        for place, each in enumerate(attribution)
        if each is not None and each.number is not None
    }
    nearest = (
        min(known, key=lambda other: abs(other - place), default=None)
        for place in range(len(attribution))
    )
    return [None if place is None else known[place] for place in nearest]


def _labelled(
    words: Sequence[TurnWord], labels: Sequence[_Label]
) -> tuple[tuple[TurnWord, ...], str]:
    """The words with their labels, and the turn's: that of most of them."""
    labelled = tuple(
        evolve(word, speaker=label.speaker, speaker_confidence=label.certainty)
        for word, label in zip(words, labels, strict=True)
    )
    known = Counter(label.speaker for label in labels if label.speaker != PENDING)
    pending = len(labels) - known.total()
    most = known.most_common(1)
    return labelled, most[0][0] if most and most[0][1] >= pending else PENDING
