"""Words to text: with a space between two of them, where their script has spaces.

Chinese, Japanese, Thai, Lao, Khmer and Burmese are written without. The rule looks at the two
characters that meet, so it holds for texts of several scripts and needs no language.
``web/joining.js`` has the same rule; ``tests/data/joined_words.json`` holds both to it.
"""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise

_WIDE = (
    (0x2E80, 0x303F),  # radicals, CJK symbols and punctuation
    (0x3040, 0x30FF),  # kana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF00, 0xFF9F),  # full-width forms, half-width kana
    (0x20000, 0x323AF),
)
"""Scripts without spaces whose characters take two columns."""
_NARROW = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0xAA60, 0xAA7F),
)
_UNSPACED = sorted(_WIDE + _NARROW)


def _within(character: str, ranges: tuple[tuple[int, int], ...] | list[tuple[int, int]]) -> bool:
    code = ord(character)
    place = bisect_right(ranges, (code, 0x110000)) - 1
    return place >= 0 and code <= ranges[place][1]


def space_between(before: str, after: str) -> str:
    """What stands between two words: a space or nothing."""
    if not before or not after:
        return ""
    last, first = before[-1], after[0]
    if last.isascii() and first.isascii():
        return " "
    return "" if _within(last, _UNSPACED) or _within(first, _UNSPACED) else " "


def join(words: Iterable[str]) -> str:
    spoken = [word for word in words if word]
    text = " ".join(spoken)
    if text.isascii():  # a fast path: most text is
        return text
    return "".join(space_between(before, word) + word for before, word in pairwise(["", *spoken]))


def columns(text: str) -> int:
    """How wide the text is, in Latin letters."""
    if text.isascii():
        return len(text)
    return sum(2 if _within(character, _WIDE) else 1 for character in text)
