"""Words to captions: what stands on a screen together, for how long, and on which line. Pure.

Two lines of 42 columns, six seconds, at most 20 columns a second where the speech allows it: what
broadcasters and streaming services ask for. Where to cut is the cheapest way through all words
that run on: a new caption costs something, a cut in the middle of a clause more than one at its
end, a caption of one word most of all. Words of scripts without spaces are cut between characters
where one is longer than a line.

``web/captions.js`` has the same rules; ``tests/data/captions.json`` holds both to them. All
numbers are whole, so that both find the same.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from attrs import define, frozen

from ssasr.protocol.joining import columns, space_between
from ssasr.protocol.messages import Turn, TurnWord
from ssasr.protocol.text import CLOSERS, ends_sentence

LINE = 42
"""Columns of a line. A Chinese character takes two."""
LONGEST = 6_000
"""Milliseconds that a caption may stay."""
SHORTEST = 1_000
"""Milliseconds that it stays, if the next one leaves the room."""
COLUMN = 50
"""Milliseconds that it takes to read a column."""
PAUSE = 1_500
"""Milliseconds of silence that should not lie within a caption."""
BREAK = 2 * PAUSE
"""And that never do."""
BREATH = 300
"""Milliseconds of silence that make a good place for a cut."""
CLAUSE_ENDS = (",", ";", ":", "—", "–", "…", "..", "，", "、", "；", "：", "،")
ABBREVIATIONS = ("Mr.", "Mrs.", "Ms.", "Dr.", "St.", "Prof.")
"""A name follows them, as it does a single letter with its full stop."""

CAPTION, ONE_WORD, WITHIN_PAUSE = 10, 100, 60
CLAUSE_CUT, BREATH_CUT, OTHER_CUT = 4, 6, 14
SENTENCE_WITHIN = 6
HURRY = 100
"""Milliseconds too few for reading that cost as much as one point."""
MOST_HURRY = 10


@define
class Cue:
    """One caption; milliseconds."""

    start: int
    end: int
    lines: list[str]
    speaker: str | None = None


@frozen
class _Unit:
    """A word, or a part of one that is longer than a line."""

    text: str
    start: int
    end: int
    space: str
    """Before it, if it does not begin a line."""
    width: int
    cut: int
    """What a cut after it costs."""
    sentence: bool
    """It ends a sentence."""


def cues(turns: Iterable[Turn]) -> list[Cue]:
    found = [cue for run in _runs(turns) for cue in _cut(run)]
    for index, cue in enumerate(found):
        reading = COLUMN * sum(columns(line) for line in cue.lines)
        end = max(cue.end, cue.start + min(max(SHORTEST, reading), LONGEST))
        if index + 1 < len(found):
            end = min(end, max(cue.end, found[index + 1].start))
        cue.end = end
    return found


def _runs(turns: Iterable[Turn]) -> Iterator[list[tuple[TurnWord, bool]]]:
    """Words of one speaker without a long silence between them, each with whether it ends a
    turn."""
    run: list[tuple[TurnWord, bool]] = []
    for turn in turns:
        for number, word in enumerate(turn.words, 1):
            last = run[-1][0] if run else word
            if word.speaker != last.speaker or word.start - last.end >= BREAK:
                yield run
                run = []
            run.append((word, number == len(turn.words)))
    if run:
        yield run


def _units(run: Sequence[tuple[TurnWord, bool]], width: int) -> list[_Unit]:
    units: list[_Unit] = []
    before = ""
    for number, (word, turn_ends) in enumerate(run):
        following = run[number + 1][0].start if number + 1 < len(run) else word.end
        parts = _parts(word.text, width)
        whole = max(1, len(word.text))
        done = 0
        for part in parts:
            start = word.start + (word.end - word.start) * done // whole
            first, done = done == 0, done + len(part)
            ends = done == len(word.text)
            units.append(
                _Unit(
                    part,
                    start,
                    word.start + (word.end - word.start) * done // whole,
                    space_between(before, part) if first else "",
                    columns(part),
                    _cut_cost(word.text, turn_ends, following - word.end) if ends else OTHER_CUT,
                    ends and (turn_ends or _ends_sentence(word.text)),
                )
            )
        before = word.text
    return units


def _parts(text: str, width: int) -> list[str]:
    """The word, in pieces that are no wider than a line."""
    parts = [""]
    for character in text:
        if columns(parts[-1] + character) > width and unicodedata.category(character)[0] != "M":
            parts.append("")
        parts[-1] += character
    return parts


def _ends_sentence(text: str) -> bool:
    bare = text.rstrip(CLOSERS)
    short = bare in ABBREVIATIONS or (len(bare) == 2 and bare[0].isalpha())
    return ends_sentence(text) and not short


def _cut_cost(text: str, turn_ends: bool, silence: int) -> int:
    if turn_ends or _ends_sentence(text):
        return 0
    if text.rstrip(CLOSERS).endswith(CLAUSE_ENDS):
        return CLAUSE_CUT
    return BREATH_CUT if silence >= BREATH else OTHER_CUT


def _cut(run: Sequence[tuple[TurnWord, bool]]) -> list[Cue]:
    """The cheapest captions of a run."""
    speaker = run[0][0].speaker
    lead = 0 if speaker is None else columns(speaker) + 2
    layout = _Layout(_units(run, LINE - lead), lead)
    ends = layout.cheapest()
    return [
        Cue(layout.units[i].start, layout.units[j - 1].end, layout.lines(i, j), speaker)
        for i, j in pairwise([0, *ends])
    ]


class _Layout:
    """Which units fit together, and at what price. ``lead``: columns of the speaker's name."""

    def __init__(self, units: Sequence[_Unit], lead: int) -> None:
        self.units = units
        self._lead = lead
        self._before = [0]
        """Columns of all units before each, with their spaces."""
        for unit in units:
            self._before.append(self._before[-1] + len(unit.space) + unit.width)

    def _width(self, start: int, end: int) -> int:
        return self._before[end] - self._before[start] - len(self.units[start].space)

    def _fits(self, start: int, end: int) -> bool:
        """Whether they fit on two lines."""
        if self._lead + self._width(start, end) <= LINE:
            return True
        return any(self._split(start, at, end) for at in range(start + 1, end))

    def _split(self, start: int, at: int, end: int) -> bool:
        first, second = self._lead + self._width(start, at), self._width(at, end)
        return first <= LINE and second <= LINE

    def cheapest(self) -> list[int]:
        """Where captions end, the best of all ways to cut."""
        best, came_from = [0], [0]
        for end in range(1, len(self.units) + 1):
            best.append(-1)
            came_from.append(end - 1)
            start = end - 1
            while start >= 0 and (start == end - 1 or self._allowed(start, end)):
                price = best[start] + self._price(start, end)
                if best[end] < 0 or price < best[end]:
                    best[end], came_from[end] = price, start
                start -= 1
        ends = [len(self.units)]
        while (start := came_from[ends[0]]) > 0:
            ends.insert(0, start)
        return ends

    def _allowed(self, start: int, end: int) -> bool:
        return (
            self.units[end - 1].end - self.units[start].start <= LONGEST
            and self._width(start, end) <= 2 * LINE
            and self._fits(start, end)
        )

    def _price(self, start: int, end: int) -> int:
        units, last = self.units[start:end], end == len(self.units)
        price = CAPTION + (0 if last else units[-1].cut)
        if len(units) == 1:
            price += ONE_WORD
        for unit, following in pairwise(units):
            price += SENTENCE_WITHIN * unit.sentence
            price += WITHIN_PAUSE * (following.start - unit.end >= PAUSE)
        if not last:
            missing = COLUMN * self._width(start, end) - (self.units[end].start - units[0].start)
            price += min(max(missing, 0) // HURRY, MOST_HURRY)
        return price

    def lines(self, start: int, end: int) -> list[str]:
        """One, or two as even as may be, cut where a caption could be cut as well."""
        if self._lead + self._width(start, end) <= LINE or end == start + 1:
            return [self._text(start, end)]
        ways = [at for at in range(start + 1, end) if self._split(start, at, end)]
        at = min(ways, key=lambda at: self._unevenness(start, at, end) + self.units[at - 1].cut)
        return [self._text(start, at), self._text(at, end)]

    def _unevenness(self, start: int, at: int, end: int) -> int:
        return max(self._lead + self._width(start, at), self._width(at, end))

    def _text(self, start: int, end: int) -> str:
        units = self.units[start:end]
        return units[0].text + "".join(unit.space + unit.text for unit in units[1:])
