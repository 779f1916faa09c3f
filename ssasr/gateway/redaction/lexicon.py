"""The lists that the rules read: ``data/redaction-en.txt``."""

import re
from functools import cache

from ssasr.runtime.sections import read_sections


@cache
def _sections(file: str) -> dict[str, tuple[str, ...]]:
    found = read_sections(file)
    return {name: tuple(" ".join(lines).split(", ")) for name, lines in found.items()}


def people(section: str) -> tuple[str, ...]:
    """Names of people, in lower case: ``data/names-en.txt``."""
    return _sections("names-en.txt")[section]


def listed(section: str) -> tuple[str, ...]:
    """The entries of a section, in order."""
    return _sections("redaction-en.txt")[section]


def words(section: str) -> frozenset[str]:
    return frozenset(listed(section))


def pattern(section: str, *, within: bool = False) -> re.Pattern[str]:
    """What matches one of the section's entries; ``within``: as whole words within a text."""
    alternatives = "|".join(listed(section))
    return re.compile(rf"\b(?:{alternatives})\b" if within else alternatives)


def said_before(policy: str) -> re.Pattern[str]:
    """What matches a text that ends in something said before a name of this kind."""
    alternatives = "|".join(listed(f"before {policy}"))
    return re.compile(rf"(?:.*\b)?(?:{alternatives})(?: the)?")
