"""Words that a client does not want to see (``filter_profanity``), language by language.

The list is ``data/profanity.txt``. Whole words are compared, so that a place name which contains
one stays as it is; inflections are in the list. Of a word with a hyphen or an apostrophe each part
is a word, and so is all of it together."""

import re
from collections.abc import Callable
from functools import cache

from ssasr.runtime.sections import read_sections

HIDDEN = "***"
_PART = re.compile(r"[^\W\d_]+")
_COMPOUND = re.compile(r"[^\W\d_]+(?:[-‐‑'’][^\W\d_]+)+")
_JOINER = re.compile(r"[-‐‑'’]")


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    """The list, compiled: ISO 639-1 code to what matches one of its words."""
    words = read_sections("profanity.txt")
    return {
        language: re.compile("|".join(f"(?:{word})" for word in each))
        for language, each in words.items()
    }


def languages() -> frozenset[str]:
    """The languages there is a list for."""
    return frozenset(_patterns())


@cache
def hide(languages: tuple[str, ...]) -> Callable[[str], str]:
    """What is shown of a word, if one of these languages is spoken: the same text with ``***`` in
    place of each listed word. Languages without a list hide nothing."""
    patterns = [_patterns()[code] for code in languages if code in _patterns()]

    def listed(word: str) -> bool:
        lowered = word.lower()
        return any(pattern.fullmatch(lowered) for pattern in patterns)

    def part(match: re.Match[str]) -> str:
        return HIDDEN if listed(match[0]) else match[0]

    def compound(match: re.Match[str]) -> str:
        return HIDDEN if listed(_JOINER.sub("", match[0])) else match[0]

    return lambda text: _PART.sub(part, _COMPOUND.sub(compound, text))
