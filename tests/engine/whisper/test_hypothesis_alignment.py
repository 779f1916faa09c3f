"""Where the committed words end in a new hypothesis."""

import pytest

from ssasr.engine.whisper.hypothesis_alignment import DecodedWord, after
from ssasr.protocol.recognition import SAMPLE_RATE, Word


def _say(*words):
    """(text, start s, end s), ..."""
    return [
        DecodedWord(Word(text, int(start * SAMPLE_RATE), int(end * SAMPLE_RATE), 0.9), (number,))
        for number, (text, start, end) in enumerate(words)
    ]


def _new(said, committed, begin=0.0):
    words = [spoken.word for spoken in _say(*committed)]
    rest = after(_say(*said), words, int(begin * SAMPLE_RATE))
    return [spoken.word.text for spoken in rest]


TWO = (("one", 0.1, 0.5), ("two", 0.5, 1.0))


@pytest.mark.parametrize(
    ("said", "new"),
    [
        # The same words with times a little off.
        ([("one", 0.1, 0.5), ("two", 0.5, 1.1), ("three", 1.1, 1.5)], ["three"]),
        ([("one", 0.1, 0.4), ("two", 0.45, 0.8), ("three", 0.85, 1.5)], ["three"]),
        # The committed words are recognised differently now: time decides.
        ([("won", 0.1, 0.5), ("too", 0.5, 0.95), ("three", 1.0, 1.5)], ["three"]),
        # The last committed word is placed late, and is still the last committed word.
        ([("one", 0.1, 0.6), ("two", 0.95, 1.3), ("three", 1.3, 1.5)], ["three"]),
        # It has got the pause after it, or lost it, and a comma.
        ([("one", 0.1, 0.5), ("Two,", 0.6, 2.4), ("three", 2.4, 2.8)], ["three"]),
        # It is written together with the word before.
        ([("one-two", 0.1, 1.2), ("three", 1.2, 1.5)], ["three"]),
        # It is said again.
        ([("one", 0.1, 0.5), ("two", 0.5, 1.0), ("two", 1.1, 1.5)], ["two"]),
        # A word more stands before it.
        ([("one", 0.1, 0.4), ("or", 0.4, 0.6), ("two", 0.7, 1.1), ("three", 1.1, 1.5)], ["three"]),
        ([], []),
    ],
)
def test_only_what_follows_the_committed_words_is_new(said, new):
    assert _new(said, TWO) == new


def test_a_word_recognised_differently_beside_a_pause_is_not_repeated():
    """The similar word that lies late is the committed one."""
    said = (("Kate", 0.5, 1.0), ("Ferris.", 1.3, 2.4), ("The", 2.4, 2.6))
    assert _new(said, (("Kate", 0.5, 1.0), ("Farris", 1.0, 1.5))) == ["The"]


def test_committed_words_whose_audio_is_forgotten_are_not_looked_for():
    """``two`` is new: the other one was said before the excerpt begins."""
    said = (("two", 1.6, 2.0), ("three", 2.0, 2.4))
    assert _new(said, TWO, begin=1.2) == ["two", "three"]


def test_the_same_word_far_away_is_another_word():
    committed = (("no", 0.0, 0.4),)
    assert _new((("no", 3.0, 3.4),), committed) == ["no"]
