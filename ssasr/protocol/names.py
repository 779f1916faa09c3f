"""The names in a text that a client gives as context: words that begin with a capital where nothing
but their being a name asks for it, not at the start of a sentence. Pure.

In languages that write every noun so, these are nouns, too.
"""

import re
from collections.abc import Iterable

MOST_NAMES = 100
SHORTEST_NAME = 3
"""Letters; shorter ones sound like too much."""
_WORD = re.compile(r"[^\W\d_](?:[\w'’-]*\w)?")
_STARTS = re.compile(r"(?:^|[.!?:…\n\"“„«(])[\s\"“„«(¿¡]*$")


def names_in(texts: Iterable[str]) -> tuple[str, ...]:
    """Each once, words that follow each other as one; of more than ``MOST_NAMES`` the last."""
    found: dict[str, None] = {}
    for text in texts:
        name, end = "", -1
        for word in _WORD.finditer(text):
            if not word[0][0].isupper() or _STARTS.search(text[: word.start()][-8:]):
                name = ""
                continue
            part = re.sub(r"['’]s?$", "", word[0])
            follows = name and text[end : word.start()] == " "
            if follows:
                found.pop(name, None)
            name, end = f"{name} {part}" if follows else part, word.end()
            found.pop(name, None)
            if len(name) >= SHORTEST_NAME:
                found[name] = None
    return tuple(found)[-MOST_NAMES:]
