"""Family P: a turn ends where another speaker begins; family U goes on and labels words."""

from ssasr.protocol.messages import SpeakerRevision, Turn
from ssasr.protocol.parameters import parse_parameters
from ssasr.protocol.recognition import VAD_FRAME, Final, Finalize, Update, Word
from ssasr.protocol.settings import turn_settings
from ssasr.session.speakers.labels import SpeakerLabels
from ssasr.session.turns import Send, TurnPolicy
from tests.session.speakers.voices import SECOND, windows

TALK = [("a", 0.0, 4.0), ("b", 4.2, 9.0)]
WORDS = tuple(Word(f"w{i}", i * 8_000, i * 8_000 + 6_000, 0.9, i < 16) for i in range(18))


def session(model, interval=""):
    query = f"speech_model={model}&speaker_labels=true{interval}"
    settings = turn_settings(parse_parameters(query))
    return TurnPolicy(settings, chunk=1_600, speakers=SpeakerLabels())


def update(position, voices=(), segment=0, start=0):
    """Somebody speaks all the time."""
    words = tuple(w for w in WORDS if start <= w.start and w.end <= position)
    count = (position - start) // VAD_FRAME
    return Update(segment, position, (0.9,) * count, words, position, voices=tuple(voices))


def test_family_p_ends_the_turn_between_two_words():
    policy = session("u3-rt-pro")
    received = windows(TALK, 7.5)
    decisions = [
        each
        for window in received
        for each in policy.update(update(window.end, [window]))
        if isinstance(each, Finalize)
    ]
    assert decisions == [Finalize(0, 9 * 8_000 - 1_000)]
    at = decisions[0].at
    (turn,) = [
        each.message
        for each in policy.final(Final(0, at, tuple(w for w in WORDS if w.end <= at)))
        if isinstance(each, Send) and isinstance(each.message, Turn)
    ]
    assert (turn.speaker_label, len(turn.words)) == ("A", 9)
    assert policy.settled(at)


def test_family_u_goes_on_and_labels_the_words():
    policy = session("universal-streaming-english")
    for window in windows(TALK, 7.5):
        said = policy.update(update(window.end, [window]))
        assert not any(isinstance(each, Finalize) for each in said)
    policy.force(int(7.5 * SECOND))
    final = Final(0, int(7.5 * SECOND), tuple(w for w in WORDS if w.end <= 7.5 * SECOND))
    (turn,) = [each.message for each in policy.final(final)]
    assert "".join(word.speaker for word in turn.words) == "A" * 8 + "B" * 7
    assert turn.speaker_label == "A"


def test_voices_after_the_end_of_a_turn_are_those_of_the_next():
    policy = session("universal-streaming-english")
    policy.update(update(2 * SECOND))
    assert policy.force(3 * SECOND) == []
    late = windows(TALK, 7.5)[-1]
    assert policy.update(update(int(7.5 * SECOND), [late])) == [Finalize(0, 3 * SECOND)]
    assert policy._speakers._timeline.end == 0


def test_a_revision_comes_at_intervals_of_audio_and_at_the_end():
    policy = session("u3-rt-pro", "&speaker_labels_revision_interval_ms=1")
    assert policy._settings.revision_interval == 120 * SECOND
    short = windows([("a", 0.0, 0.7)], 1.0)
    policy.update(update(SECOND, short))
    policy.force(SECOND)
    said = policy.final(Final(0, SECOND, WORDS[:1]))
    assert [each.message.speaker_label for each in said if hasattr(each.message, "words")] == [
        "PENDING"
    ]
    more = [each for each in windows([("a", 0.0, 0.7), ("a", 2.0, 9.0)], 9.0) if each.end > SECOND]
    policy.update(update(9 * SECOND, more, 1, SECOND))
    policy.force(130 * SECOND)
    policy.update(update(130 * SECOND, (), 1, SECOND))
    last = policy.final(Final(1, 130 * SECOND, ()))
    (revision,) = [each.message for each in last if isinstance(each.message, SpeakerRevision)]
    assert [(each.turn_order, each.speaker_label) for each in revision.revisions] == [(0, "A")]
    assert policy.conclude() == []


def test_the_profile_of_family_p():
    settings = turn_settings(parse_parameters("speech_model=u3-rt-pro&speaker_labels=true"))
    assert (settings.min_turn_silence, settings.max_turn_silence) == (640 * 16, 768 * 16)
    assert (settings.vad_threshold, settings.max_turn_duration) == (0.5, 10 * SECOND)
    own = "speech_model=u3-rt-pro&speaker_labels=true&mode=min_latency&max_turn_silence=2000"
    settings = turn_settings(parse_parameters(own))
    assert (settings.min_turn_silence, settings.max_turn_silence) == (640 * 16, 32_000)
