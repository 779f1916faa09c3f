"""What is kept of a stream, and which of its answers are delivered."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ssasr.protocol.recognition import (
    Audio,
    Configure,
    Final,
    Finalize,
    Open,
    StreamOptions,
    Update,
    Word,
)
from ssasr.protocol.stream_position import OutOfPlace
from ssasr.protocol.voices import CONTEXT
from ssasr.routing.replay import Replay

OPENING = Open("session", StreamOptions(pause=1))


def options(number):
    return StreamOptions(pause=number)


def audio(replay, samples):
    start = replay.position.sent
    return Audio(start, b"".join(at.to_bytes(2, "little") for at in range(start, start + samples)))


def update(segment, position, words=(), decoded=None):
    return Update(segment, position, (), words, position if decoded is None else decoded)


def word(text, start, *, final=True):
    return Word(text, start, start + 10, 0.5, final)


def test_options_without_end_take_no_memory():
    """Of those that no audio came between, the last holds."""
    replay = Replay(OPENING)
    for samples in (100, 0, 50):
        replay.add(audio(replay, samples))
        for number in range(100):
            replay.add(Configure(options(number)))
    configured = [message for message in replay.messages() if isinstance(message, Configure)]
    assert configured == [Configure(options(99))] * 3
    replay.check_integrity()


def test_the_next_segment_opens_with_the_options_and_the_audio_it_needs():
    replay = Replay(OPENING)
    replay.add(audio(replay, 100))
    replay.add(Configure(options(2)))
    replay.add(audio(replay, 100))
    replay.add(Configure(options(3)))
    replay.add(Finalize(0, 150))
    replay.add(audio(replay, 50))
    assert replay.opening() == OPENING
    assert len(replay.messages()) == 6
    assert replay.deliver(Final(0, 150, ())) is not None
    assert replay.opening() == Open("session", options(2), 1, 150)
    first, change, last = replay.messages()
    assert first.start == 150
    assert first.pcm == b"".join(at.to_bytes(2, "little") for at in range(150, 200))
    assert change == Configure(options(3))
    assert last.start == 200
    replay.check_integrity()


def test_an_unanswered_finalize_is_replayed():
    replay = Replay(OPENING)
    replay.add(audio(replay, 100))
    replay.add(Finalize(0, 60))
    assert replay.messages()[-1] == Finalize(0, 60)
    assert replay.position.finalize is not None


def test_old_answers_are_dropped():
    replay = Replay(OPENING)
    replay.add(audio(replay, 400))
    assert replay.deliver(update(0, 100)) is not None
    assert replay.deliver(update(0, 200, decoded=100)) is not None
    assert replay.deliver(update(0, 200, decoded=150)) is not None, "later decoded is new"
    for old in (update(0, 100), update(0, 200, decoded=150), update(1, 300), Final(0, 100, ())):
        assert replay.deliver(old) is None
    replay.add(Finalize(0, 150))
    assert replay.deliver(Final(0, 140, ())) is None, "it answers nothing that was asked"
    assert replay.deliver(Final(0, 150, ())) is not None
    assert replay.deliver(Final(0, 150, ())) is None
    assert replay.deliver(update(0, 300)) is None
    assert replay.deliver(update(1, 250)) is not None
    assert replay.dropped == 7


def test_words_delivered_as_final_stay_whatever_the_next_engine_answers():
    replay = Replay(OPENING)
    replay.add(audio(replay, 400))
    delivered = (word("so", 0), word("it", 20))
    replay.deliver(update(0, 100, (*delivered, word("gues", 40, final=False))))
    assert replay.opening().committed == delivered
    other = (word("sow", 0), word("it", 20), word("goes", 40))
    assert replay.deliver(update(0, 200, other)).words == (*delivered, other[2])
    assert replay.deliver(update(0, 300, ())).words == (*delivered, other[2])
    replay.add(Finalize(0, 30))
    assert replay.deliver(Final(0, 30, other[:2])).words == delivered


def test_words_that_nobody_is_shown_are_not_committed():
    replay = Replay(OPENING)
    replay.add(audio(replay, 400))
    replay.add(Finalize(0, 90))
    replay.deliver(update(0, 200, (word("late", 100),)))
    assert replay.opening().committed == ()


def test_the_next_engine_knows_the_language_that_was_spoken_before():
    replay, before = Replay(OPENING), []
    said, silence = (word("ja", 0),), ()
    for number, (words, language, confidence) in enumerate(
        [(silence, None, 0.0), (said, "de", 0.9), (said, "nl", 0.5), (silence, "fr", 0.9)]
    ):
        replay.add(audio(replay, 100))
        at = replay.position.sent
        replay.add(Finalize(number, at))
        replay.deliver(Final(number, at, words, 0.0, language, confidence))
        before.append(replay.opening().language_before)
    assert before == [None, "de", "de", "de"]
    assert Replay(replay.opening()).opening() == replay.opening()


def test_too_long_a_segment_cannot_be_replayed_but_the_next_one_can():
    replay = Replay(OPENING, max_kept=250)
    for _ in range(4):
        replay.add(audio(replay, 100))
        replay.add(Configure(options(9)))
        replay.check_integrity()
    assert not replay.replayable
    assert replay.kept == 200
    replay.add(Finalize(0, 350))
    replay.deliver(Final(0, 350, ()))
    assert replay.replayable
    assert replay.opening() == Open("session", options(9), 1, 350)
    replay.check_integrity()


def test_the_wrong_order_is_a_bug():
    replay = Replay(OPENING)
    with pytest.raises(OutOfPlace):
        replay.add(Audio(1, b"ab"))
    replay.add(Finalize(0, 0))
    with pytest.raises(OutOfPlace):
        replay.add(Finalize(0, 0))


class Conversation(RuleBasedStateMachine):
    """A session and any number of engines that answer anything legal; after every step, an engine
    that is given what was kept knows all that it must."""

    @initialize(max_kept=st.sampled_from([300, 10**9]))
    def begin(self, max_kept):
        self.replay = Replay(OPENING, max_kept)
        self.segment, self.start, self.finalize = 0, 0, None
        self.options = [(0, OPENING.options)]

    @rule(samples=st.integers(0, 120))
    def speak(self, samples):
        self.replay.add(audio(self.replay, samples))

    @rule(number=st.integers(2, 9))
    def configure(self, number):
        self.replay.add(Configure(options(number)))
        self.options.append((self.replay.position.sent, options(number)))

    @precondition(lambda self: self.finalize is None)
    @rule(part=st.floats(0, 1))
    def end(self, part):
        said = self.replay.position.sent
        self.finalize = Finalize(self.segment, self.start + int(part * (said - self.start)))
        self.replay.add(self.finalize)

    @rule(part=st.floats(0, 1))
    def hear(self, part):
        said = self.replay.position.sent
        delivered = self.replay._delivered_to[0]
        position = self.start + int(part * (said - self.start))
        new = self.replay.deliver(update(self.segment, position))
        if position != delivered:  # if it is the same, the first such answer is new
            assert (new is not None) == (position > delivered)

    @precondition(lambda self: self.finalize is not None)
    @rule()
    def answer(self):
        assert self.replay.deliver(Final(self.segment, self.finalize.at, ())) is not None
        self.segment, self.start, self.finalize = self.segment + 1, self.finalize.at, None

    @invariant()
    def nothing_is_missing(self):
        if not hasattr(self, "replay"):
            return
        self.replay.check_integrity()
        if not self.replay.replayable:
            return
        opening = self.replay.opening()
        assert (opening.segment, opening.start) == (self.segment, self.start)
        position, in_force = opening.start, [(opening.start, opening.options)]
        finalizes = []
        for message in self.replay.messages():
            match message:
                case Audio(start, pcm):
                    assert start == position
                    expected = range(start, start + len(pcm) // 2)
                    assert pcm == b"".join(at.to_bytes(2, "little") for at in expected)
                    position += len(pcm) // 2
                case Configure(changed):
                    in_force.append((position, changed))
                case Finalize():
                    finalizes.append(message)
        assert position == self.replay.position.sent
        assert finalizes == ([] if self.finalize is None else [self.finalize])
        for end in range(self.start + 1, position + 2, 7):
            assert self._at(in_force, end) == self._at(self.options, end)

    @staticmethod
    def _at(changes, end):
        """The options of a step that ends at ``end``."""
        return [changed for position, changed in changes if position < end][-1]


Conversation.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestConversation = Conversation.TestCase


def test_the_audio_that_windows_reach_back_to_is_said_again_first():
    replay = Replay(Open("s", StreamOptions(speakers=True)))
    for start in range(0, 400_000, 16_000):
        replay.add(Audio(start, bytes(32_000)))
    for segment, at in enumerate((100_000, 300_000)):
        replay.add(Finalize(segment, at))
        assert replay.deliver(Final(segment, at, ())) is not None
        replay.check_integrity()
        opening = replay.opening()
        assert (opening.start, opening.context) == (at, min(at, CONTEXT))
        assert replay.messages()[0].start == at - opening.context
