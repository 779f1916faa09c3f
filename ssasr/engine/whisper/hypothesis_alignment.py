"""Where the committed words end in a new hypothesis about the same audio.

A hypothesis is decoded from scratch, so it contains the committed words again, perhaps spelt
differently and at slightly other times. Times alone do not locate their end: a pause of a second or
more is sometimes given to the word before it and sometimes to the word after it, and a border that
is one word off repeats or loses a word. Texts alone do not either, because people repeat words. So
the border is placed where texts and times together fit best.
"""

import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from math import inf

from attrs import frozen

from ssasr.protocol.recognition import SAMPLE_RATE, Word

TAIL = 8
"""Committed words that are looked for in the hypothesis."""
REACH = 2 * SAMPLE_RATE
"""Times of one and the same word differ by less than this in two hypotheses."""
MISSING = 1.0
"""Cost of a word that only one side has."""
OTHER = 1.0
"""Cost of quite another word in the same place; a similar one costs down to none of it."""
BEYOND = 0.5
"""Cost of a word on the wrong side of the end of the committed words, by its middle."""

LEAST_WORD = 320
"""One frame of the alignment, 20 ms: a word of this length has no audio of its own."""


@frozen
class DecodedWord:
    """A word, the tokens that spell it, and the log probability of the last of them, which is the
    mark where it ends with one."""

    word: Word
    tokens: tuple[int, ...]
    closing: float = 0.0

    @property
    def key(self) -> str:
        """What makes two hypotheses agree on a word: neither its casing nor its punctuation."""
        return bare(self.word.text)


def bare(text: str) -> str:
    """Letters, digits and marks only, folded; the text itself if it has none."""
    kept = "".join(
        character for character in text if unicodedata.category(character)[0] in "LNM"
    ).casefold()
    return kept or text


def after(
    hypothesis: Sequence[DecodedWord], committed: Sequence[Word], begin: int
) -> list[DecodedWord]:
    """The part of a hypothesis about the audio from ``begin`` on that follows the committed words.

    Of borders that fit as well the first: rather a word twice than one lost."""
    if not committed:
        return list(hypothesis)
    tail = [(bare(word.text), word) for word in committed[-TAIL:] if word.end > begin]
    fits = _alignment(tail, hypothesis)
    late = [spoken.word.start + spoken.word.end > 2 * committed[-1].end for spoken in hypothesis]
    wrong = [sum(late[:place]) + late[place:].count(False) for place in range(len(late) + 1)]
    costs = [fit + BEYOND * count for fit, count in zip(fits, wrong, strict=True)]
    return list(hypothesis[costs.index(min(costs)) :])


def _alignment(tail: Sequence[tuple[str, Word]], words: Sequence[DecodedWord]) -> list[float]:
    """Cost of the best alignment of the tail with words that end before each border, 0 … n. Words
    before the tail cost nothing."""
    costs = [0.0] * (len(words) + 1)
    others = [(spoken.key, spoken.word) for spoken in words]
    for key, word in tail:
        row = [costs[0] + MISSING]
        for place, other in enumerate(others):
            best = min(costs[place + 1], row[place]) + MISSING
            if costs[place] < best:
                best = min(best, costs[place] + _difference(key, word, *other))
            row.append(best)
        costs = row
    return costs


def _difference(key: str, word: Word, other_key: str, other: Word) -> float:
    """0 for the same word in the same place, up to 1 for another, infinite elsewhere."""
    if min(abs(word.start - other.start), abs(word.end - other.end)) > REACH:
        return inf
    if key == other_key:
        return 0.0
    return OTHER * (1 - SequenceMatcher(None, key, other_key, autojunk=False).ratio())


def without_squeezed(words: Sequence[DecodedWord]) -> list[DecodedWord]:
    """Without runs of words that have no audio: the alignment gives every word its place, and what
    the decoder said twice, or made up, shares one frame. One such word may be a short one beside a
    long one; two in a row are not plausible."""
    short = [spoken.word.end - spoken.word.start <= LEAST_WORD for spoken in words]
    kept = []
    for number, spoken in enumerate(words):
        beside = short[max(0, number - 1) : number + 2]
        if not (short[number] and sum(beside) > 1):
            kept.append(spoken)
    return kept
