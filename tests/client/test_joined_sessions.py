"""Several sessions for one recording, shown as one."""

from ssasr.client.transcribe import Joined, colour
from ssasr.protocol.messages import (
    RevisedTurn,
    SpeakerRevision,
    Termination,
    Turn,
    TurnWord,
)


def turn(order, speaker, start=0):
    words = (TurnWord("hi", start, start + 300, 0.9, True, speaker),)
    return Turn(order, True, True, "hi", "hi", 1.0, words, speaker_label=speaker)


def test_speakers_of_a_further_session_are_not_taken_for_those_of_the_first():
    shown = []
    joined = Joined(shown.append)
    joined.pass_on(turn(0, "A"))
    joined.pass_on(turn(1, "PENDING"))
    joined.go_on(Termination(10, 10), 10_000)
    for message in (turn(0, "A"), turn(1, "B", 500), turn(2, "PENDING"), turn(3, None)):
        joined.pass_on(message)
    joined.pass_on(SpeakerRevision((RevisedTurn(1, "A", turn(1, "A").words),)))
    joined.go_on(Termination(10, 10), 10_000)
    joined.pass_on(turn(0, "A"))
    *turns, revision, last = shown
    labels = [each.speaker_label for each in turns]
    assert labels == ["A", "PENDING", "2A", "2B", "PENDING", None]
    assert [each.words[0].speaker for each in turns] == labels
    assert [each.turn_order for each in turns] == [0, 1, 2, 3, 4, 5]
    assert (turns[3].words[0].start, last.words[0].start) == (10_500, 20_000)
    assert (revision.revisions[0].turn_order, revision.revisions[0].speaker_label) == (3, "2A")
    assert (last.turn_order, last.speaker_label) == (6, "3A")


def test_colours():
    assert colour(None) == colour("A") != colour("2A") == colour("B")
    assert colour("PENDING") == colour("UNKNOWN") == "white"
