"""Words at the border of a piece that two people share."""

import numpy as np
import pytest

from ssasr.session.speakers.borders import TimedWord, speakers_of
from ssasr.session.speakers.clusters import Sample, Speakers
from tests.session.speakers.voices import PEOPLE, SECOND


def piece(number, **shares):
    """The seconds from ``2 * number`` on; ``shares``: of whom, and how much."""
    vector = sum(share * PEOPLE[who] / np.linalg.norm(PEOPLE[who]) for who, share in shares.items())
    start, length = 2 * SECOND * number, 2 * SECOND
    vector = (vector / np.linalg.norm(vector)).astype(np.float32)
    return Sample(number, 0, length, length, vector, start=start, end=start + length)


def spoken(pieces, gap=0.0):
    """Words of 0.25 s, eight a piece; ``gap``: seconds between the words of two pieces."""
    return [
        TimedWord(start, start + SECOND // 4 - int(gap * SECOND if n == 7 else 0), number)
        for number in range(pieces)
        for n in range(8)
        for start in [2 * SECOND * number + n * SECOND // 4]
    ]


def letters(samples, words):
    speakers = speakers_of(words, samples, Speakers.of(samples, None))
    return "".join("-" if each is None else "ABCD"[each] for each in speakers)


LONG = [{"a": 1}, {"a": 1}, {"a": 1}]


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        ({"a": 0.5, "b": 0.5}, 4),
        ({"a": 0.25, "b": 0.75}, 2),
        ({"a": 0.75, "b": 0.25}, 6),
        ({"a": 0.9, "b": 0.1}, 8),
        ({"a": 0.1, "b": 0.9}, 0),
    ],
)
def test_the_words_on_the_far_side_of_a_change_are_the_neighbours(between, expected):
    samples = [piece(n, **who) for n, who in enumerate([*LONG, between, {"b": 1}, {"b": 1}])]
    said = letters(samples, spoken(6))
    assert said == "A" * (24 + expected) + "B" * (24 - expected)


def test_a_neighbour_far_away_does_not_share_the_piece():
    samples = [piece(n, **who) for n, who in enumerate([*LONG, {"a": 0.4, "b": 0.6}, {"b": 1}])]
    assert letters(samples, spoken(5)) == "A" * 27 + "B" * 13
    words = [word for word in spoken(5) if not 22 <= word.start / (SECOND // 4) < 26]
    assert letters(samples, words) == "A" * 22 + "B" * 14


def test_a_piece_between_two_of_somebody_else_may_be_shared_with_both():
    talk = [*LONG, {"b": 1}, {"b": 1}, {"a": 1}, {"a": 0.25, "b": 0.75}, *LONG, {"b": 1}]
    samples = [piece(n, **who) for n, who in enumerate(talk)]
    said = "A" * 24 + "B" * 16 + "A" * 10 + "B" * 4 + "A" * 26 + "B" * 8
    assert letters(samples, spoken(11)) == said


def test_words_without_an_embedding_have_no_speaker_and_give_none():
    samples = [piece(0, a=1), piece(1, b=1)]
    words = [TimedWord(0, 100, None), *spoken(2), TimedWord(70_000, 70_100, None)]
    assert letters(samples, words) == "-" + "A" * 8 + "B" * 8 + "-"
    assert letters([], words[:1]) == "-"
