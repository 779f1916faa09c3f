"""Labels as turns end, and their revision."""

import pytest

from ssasr.protocol.messages import Turn, TurnWord
from ssasr.protocol.voices import Run, Voice, Voices
from ssasr.session.speakers.labels import PENDING, SpeakerLabels, letter
from tests.session.speakers.voices import SECOND, embedding, window, windows


def turn(order, *words):
    """``words``: (start, end) in seconds."""
    said = tuple(TurnWord("w", int(a * 1_000), int(b * 1_000), 1.0, True) for a, b in words)
    return Turn(order, True, True, "w", "", 1.0, said)


def shown(labels, order, *words):
    labelled = labels.label(turn(order, *words))
    return labelled.speaker_label, "".join(word.speaker[0] for word in labelled.words)


DIALOGUE = [("a", 0.0, 4.0), ("b", 4.5, 8.0), ("a", 8.2, 12.0)]


def test_speakers_are_labelled_in_the_order_of_appearance():
    labels = SpeakerLabels()
    labels.update(windows(DIALOGUE, 12.5))
    assert shown(labels, 0, (0.5, 1.0), (3.0, 3.5)) == ("A", "AA")
    assert shown(labels, 1, (4.6, 5.0), (7.0, 7.5)) == ("B", "BB")
    assert shown(labels, 2, (8.5, 9.0), (11.0, 11.5)) == ("A", "AA")
    assert labels.revise() is None


def test_a_word_says_how_sure_its_label_is():
    labels = SpeakerLabels()
    labels.update(windows(DIALOGUE, 20.0))
    sure = labels.label(turn(0, (0.5, 1.0), (5.0, 5.5), (15.0, 15.2))).words
    assert [word.speaker for word in sure] == ["A", "B", PENDING]
    assert all(0.7 < word.speaker_confidence <= 1 for word in sure[:2])
    assert sure[2].speaker_confidence is None
    (change,) = labels.revise().revisions  # of the last word, which is B's too
    assert all(0.7 < word.speaker_confidence <= 1 for word in change.words)
    assert labels.revise() is None


def test_a_turn_is_of_whoever_said_most_of_it():
    labels = SpeakerLabels()
    labels.update(windows(DIALOGUE, 12.5))
    said = [(3.0, 3.5), (4.6, 5.0), (5.2, 5.5), (6.0, 6.4), (8.3, 8.6)]
    assert shown(labels, 0, *said) == ("B", "ABBBA")


def test_too_little_speech_is_pending_until_there_is_more():
    labels = SpeakerLabels()
    labels.update([window([("a", 0.2, 0.6)], int(1.0 * SECOND))])
    assert shown(labels, 0, (0.2, 0.6)) == (PENDING, "P")
    labels.update([window([("a", 0.2, 0.6), ("a", 1.2, 4.0)], int(4.0 * SECOND))])
    assert shown(labels, 1, (1.5, 2.0)) == ("A", "A")


def test_a_word_in_a_gap_is_of_the_nearest_voice_and_far_from_all_of_nobody():
    labels = SpeakerLabels()
    labels.update(windows(DIALOGUE[:2], 9.0))
    assert shown(labels, 0, (4.05, 4.1), (4.4, 4.45), (8.9, 8.95)) == ("A", "ABP")


def test_the_louder_of_two_has_the_word():
    labels = SpeakerLabels()
    voices = (
        Voice((Run(0, 3 * SECOND), Run(3 * SECOND, 4 * SECOND, louder=False)), 48_000,
              embedding("a")),
        Voice((Run(3 * SECOND, 6 * SECOND),), 48_000, embedding("b")),
    )  # fmt: skip
    labels.update([Voices(0, 6 * SECOND, voices)])
    assert shown(labels, 0, (1.0, 1.5), (3.2, 3.8), (5.0, 5.5)) == ("B", "ABB")


def test_windows_that_are_heard_again_change_nothing():
    once, twice = SpeakerLabels(), SpeakerLabels()
    attribution = windows(DIALOGUE, 12.5)
    once.update(attribution)
    for each in attribution:
        twice.update([each])
        twice.update(attribution[:2])
    words = [(0.5, 1.0), (5.0, 5.5), (9.0, 9.5)]
    assert shown(once, 0, *words) == shown(twice, 0, *words)


def test_no_more_labels_than_max_speakers():
    talk = [(person, 4.0 * i, 4.0 * i + 3.5) for i, person in enumerate("abcdef")]
    labels = SpeakerLabels(2)
    labels.update(windows(talk, 24.0))
    _, words = shown(labels, 0, *[(4.0 * i + 1, 4.0 * i + 2) for i in range(6)])
    assert set(words) <= {"A", "B"}
    labels.revise()
    assert set(labels._letters.values()) == {"A", "B"}


def test_a_speaker_change_is_found_where_it_lies_and_an_interjection_is_none():
    labels = SpeakerLabels()
    labels.update(windows([("a", 0.0, 4.0), ("b", 4.2, 9.0)], 7.5))
    assert labels.change_after(0) == int(4.2 * SECOND)
    assert labels.change_after(int(4.2 * SECOND)) is None
    quiet = SpeakerLabels()
    quiet.update(windows([("a", 0.0, 4.0), ("b", 4.1, 4.8), ("a", 5.0, 9.0)], 9.0))
    assert quiet.change_after(0) is None


def revised(labels):
    revision = labels.revise()
    return {} if revision is None else {
        each.turn_order: (each.speaker_label, "".join(word.speaker for word in each.words))
        for each in revision.revisions
    }  # fmt: skip


def test_the_revision_changes_as_few_words_as_it_can_and_says_only_those():
    """One person taken for two at first: the fewer words change."""
    labels = SpeakerLabels()
    far = [window([("a", 0.0, 2.0)], 2 * SECOND, likeness=0.5)]
    talk = [("b", 3.0, 6.0), ("a", 7.0, 12.0), ("a", 13.0, 17.0)]
    rest = [each for each in windows(talk, 17.5) if each.end > 2 * SECOND]
    labels.update(far)
    first = shown(labels, 0, (0.5, 1.0))
    labels.update(rest)
    second = shown(labels, 1, (4.0, 4.5), (5.0, 5.5))
    third = shown(labels, 2, (8.0, 8.5), (9.0, 9.5), (14.0, 14.5), (15.0, 15.5))
    assert (first, second) == (("A", "A"), ("B", "BB"))
    changed = revised(labels)
    assert changed.keys() <= {0}
    assert changed.get(0, (third[0],))[0] == third[0]
    assert revised(labels) == {}


def test_a_revision_keeps_texts_and_times():
    labels = SpeakerLabels()
    labels.update([window([("a", 0.2, 0.9)], SECOND, least=SECOND // 2)])
    pending = labels.label(turn(4, (0.2, 0.9)))
    assert pending.speaker_label == PENDING
    labels.update(windows([("a", 0.2, 0.9), ("a", 1.5, 9.0)], 9.0)[1:])
    (change,) = labels.revise().revisions
    assert (change.turn_order, change.speaker_label) == (4, "A")
    assert [(w.text, w.start, w.end) for w in change.words] == [("w", 200, 900)]


def test_the_revision_gives_a_word_that_nobody_said_to_whoever_said_the_nearest():
    labels = SpeakerLabels()
    labels.update(windows(DIALOGUE, 20.0))
    words = [(0.5, 1.0), (3.0, 3.5), (13.0, 13.2)]
    assert shown(labels, 0, *words) == ("A", "AAP")
    assert shown(labels, 1, (16.0, 16.2)) == (PENDING, "P")
    assert revised(labels) == {0: ("A", "AAA")}


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "A"), (25, "Z"), (26, "AA"), (27, "AB"), (702, "AAA")]
)
def test_letters(number, expected):
    assert letter(number) == expected
