"""Words at the border of a piece in which two people follow each other. Pure.

A piece of about 2 s has one embedding, and all of its words go to whom it is most like. Where one
person follows another without a pause, it holds the end of one and the beginning of the other, and
its embedding lies between theirs, about as far from each as they have spoken in it. So it says
where in the piece the change is, and the words on the far side are of whoever spoke the word
before or after the piece.
"""

from collections.abc import Sequence
from itertools import groupby

from attrs import frozen

from ssasr.protocol.recognition import SAMPLE_RATE
from ssasr.session.speakers.clusters import Sample, Speakers

LEAST_SHARE = 0.2
"""Of a piece, that is somebody else's; less is chance."""
BESIDE = 6 * SAMPLE_RATE // 10
"""Samples between a piece's first or last word and the neighbour's, at most."""


@frozen
class TimedWord:
    """A word, in stream samples, and the number of its embedding, if it has one."""

    start: int
    end: int
    number: int | None

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2


def speakers_of(
    words: Sequence[TimedWord], samples: Sequence[Sample], found: Speakers
) -> list[int | None]:
    """Of all words of a session, in their order."""
    own = [None if word.number is None else found.numbers[word.number] for word in words]
    speakers, first = list(own), 0
    for number, piece in groupby(words, key=lambda word: word.number):
        last = first + len(list(piece)) - 1
        if number is not None:
            length = samples[number].end - samples[number].start
            before = _share(words, own, first, first - 1, found) * length
            after = _share(words, own, last, last + 1, found) * length
            for n in range(first, last + 1):
                if before and words[n].middle < samples[number].start + before:
                    speakers[n] = own[first - 1]
                elif after and words[n].middle > samples[number].end - after:
                    speakers[n] = own[last + 1]
        first = last + 1
    return speakers


def _share(
    words: Sequence[TimedWord], own: Sequence[int | None], edge: int, beside: int, found: Speakers
) -> float:
    """Of the piece of the word ``edge``, how much is of the speaker of the word ``beside`` it."""
    if not 0 <= beside < len(words):
        return 0.0
    number, one, other = words[edge].number, own[edge], own[beside]
    gap = max(words[edge].start - words[beside].end, words[beside].start - words[edge].end)
    if number is None or one is None or other is None or one == other or gap >= BESIDE:
        return 0.0
    share = found.share(number, other)
    return share if share >= LEAST_SHARE else 0.0
