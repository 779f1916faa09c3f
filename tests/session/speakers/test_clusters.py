"""Voices made into speakers: as they come, and all at once."""

import numpy as np
import pytest
from attrs import evolve

from ssasr.session.speakers.clusters import BLOCK, OnlineClusters, Sample, _Merging, cluster
from tests.session.speakers.voices import SECOND, embedding


def sample(
    person, number, clean=2 * SECOND, likeness=0.85, overlaps=False, channel=None, fresh=None
):
    vector = np.frombuffer(embedding(person, likeness), "<f2").astype(np.float32)
    channel = ord(person) if channel is None else channel
    fresh = clean if fresh is None else fresh
    return Sample(number, channel, clean, fresh, vector / np.linalg.norm(vector), overlaps)


def names(people, found):
    """Every person with the speakers that they were taken for."""
    return {person: {who for p, who in zip(people, found, strict=True) if p == person}
            for person in people}  # fmt: skip


def test_people_are_told_apart_as_they_come():
    people = "abacbdabcdda"
    clusters = OnlineClusters()
    found = [clusters.assign([sample(each, n)])[0] for n, each in enumerate(people)]
    assert names(people, found) == {"a": {0}, "b": {1}, "c": {2}, "d": {3}}


def test_two_voices_of_a_window_are_two_people():
    clusters = OnlineClusters()
    assert clusters.assign([sample("a", 1), sample("b", 1)]) == [0, 1]
    close = sample("a", 2)
    rotated = evolve(close, channel=0, vector=close.vector[::-1].copy(), overlaps=True)
    assert clusters.assign([close, rotated]) == [0, 2]


def test_one_voice_that_a_window_hears_twice_is_one_person_unless_it_speaks_over_itself():
    clusters = OnlineClusters()
    first = sample("a", 1)
    assert clusters.assign([first]) == [0]
    assert clusters.assign([first, evolve(first, channel=1)]) == [0, 0]
    both = evolve(first, overlaps=True)
    assert set(clusters.assign([both, evolve(both, channel=1)])) == {0, 1}


def test_pieces_of_one_channel_that_are_alike_are_one_person_from_the_first_window_on():
    """Each alone is too unlike the others: what they have in common is who it is."""
    clusters = OnlineClusters()
    pieces = [sample("a", 1, likeness=0.62) for _ in range(4)]
    assert len({OnlineClusters().assign([piece])[0] for piece in pieces}) == 1
    assert clusters.assign(pieces) == [0] * 4
    assert clusters.assign([sample("a", 2)]) == [0]


def test_one_channel_may_hold_two_people_one_after_the_other():
    pieces = [sample(person, 1, channel=0) for person in "aabb"]
    assert OnlineClusters().assign(pieces) == [0, 0, 1, 1]


def test_one_voice_in_two_channels_is_one_person_when_everything_is_known():
    """The model that separates voices had one that spoke over itself."""
    twice = [sample("a", n // 2, channel=n % 2, overlaps=True) for n in range(8)]
    assert set(cluster(twice)) == {0}


def test_two_who_are_nearly_alike_are_two_once_both_have_spoken_for_long():
    """Of pieces of one voice the cosine is 0.72, of one of each 0.4; of sums of eight pieces 0.95
    and 0.53, which would be one voice's if each had said two seconds."""
    one, other = sample("a", 0, likeness=1).vector, sample("b", 0, likeness=1).vector
    other = (0.55 * one + np.sqrt(1 - 0.55**2) * other).astype(np.float32)
    random = np.random.default_rng(3)
    pieces = []
    for n in range(16):
        noise = random.normal(0, 1, len(one))
        vector = 0.85 * (one, other)[n % 2] + np.sqrt(1 - 0.85**2) * noise / np.linalg.norm(noise)
        vector = (vector / np.linalg.norm(vector)).astype(np.float32)
        pieces.append(Sample(n, 0, 2 * SECOND, 2 * SECOND, vector))
    assert cluster(pieces) == [0, 1] * 8
    clusters = OnlineClusters()
    turns = [*pieces[::2], *pieces[1::2]]
    assert [clusters.assign(turns[n : n + 4])[0] for n in range(0, 16, 4)] == [0, 0, 1, 1]


def between(*people):
    """A voice that is a little like each of them, as a piece that holds several."""
    vectors = [sample(person, 0, likeness=1).vector for person in people]
    return sum(vectors) / np.linalg.norm(sum(vectors))


def test_a_piece_in_two_windows_counts_once():
    """Where two people follow each other without a pause, a piece holds both, and is nobody."""
    people = [sample(person, 10 + n, 3 * SECOND) for n, person in enumerate("abcd" * 2)]
    once = sample("e", 30)
    mixed = evolve(once, vector=between("a", "e", "e"))
    again = evolve(mixed, window=31, fresh=SECOND // 4)
    assert len(set(cluster([*people, mixed, again]))) == 4
    assert len(set(cluster([*people, mixed, evolve(again, fresh=2 * SECOND)]))) == 5


def test_little_speech_makes_no_new_speaker_but_joins_one():
    clusters = OnlineClusters()
    assert clusters.assign([sample("a", 1, clean=SECOND // 2)]) == [None]
    assert clusters.assign([sample("a", 2)]) == [0]
    assert clusters.assign([sample("a", 3, clean=SECOND // 2)]) == [0]
    assert clusters.assign([sample("b", 4, clean=SECOND // 2)]) == [None]


def test_no_more_speakers_than_the_limit():
    clusters = OnlineClusters(2)
    found = [clusters.assign([sample(each, n)])[0] for n, each in enumerate("abcdefgh")]
    assert set(found) == {0, 1}
    assert clusters.assign([sample("a", 9), sample("b", 9), sample("c", 9)])[:2] == [0, 1]


@pytest.mark.parametrize(("limit", "expected"), [(None, 4), (2, 2), (1, 1), (10, 4)])
def test_all_at_once(limit, expected):
    people = "abcd" * 8
    found = cluster([sample(each, n // 2) for n, each in enumerate(people)], limit)
    assert len(set(found)) == expected
    assert all(len(who) == 1 for who in names(people, found).values())


def test_all_at_once_of_nobody_and_of_one():
    assert cluster([]) == []
    assert cluster([sample("a", 1)]) == [0]


def test_next_to_no_speech_is_a_part_of_somebody_else():
    people = "aaaabbbbc"
    found = cluster([sample(each, n, SECOND - (each == "c")) for n, each in enumerate(people)])
    assert len(set(found)) == 2


def test_little_speech_of_somebody_like_nobody_else_is_a_speaker():
    people = "aaaabbbbc"
    found = cluster([sample(each, n, 3 * SECOND // 2) for n, each in enumerate(people)])
    assert len(set(found)) == 3


def test_hours_of_voices_are_clustered_block_by_block(monkeypatch):
    """Never all pairs at once before there are few clusters: the event loop waits meanwhile."""
    compared = []
    likeness = _Merging._likeness

    def counted(self, **how):
        found = likeness(self, **how)
        compared.append(len(found))
        return found

    monkeypatch.setattr(_Merging, "_likeness", counted)
    people = [("abcd" * 5)[n % 17] for n in range(3_000)]
    found = cluster([sample(each, n) for n, each in enumerate(people)])
    assert names(people, found) == {"a": {0}, "b": {1}, "c": {2}, "d": {3}}
    assert max(compared) <= BLOCK
