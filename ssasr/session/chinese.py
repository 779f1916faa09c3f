"""One way of writing Chinese throughout a session, whichever the model happens to use.

Models mix Simplified and Traditional characters, at times in one sentence. The characters are
OpenCC's (Apache-2.0), an extra (``pip install ssasr[chinese]``); without it the text stays as the
model writes it. Word by word, so that a word that was final never changes.
"""

from collections.abc import Callable
from functools import cache

from ssasr.protocol.chinese import HONG_KONG, SIMPLIFIED, TAIWAN, TRADITIONAL

Rewrite = Callable[[str], str]
"""A word to what is shown of it."""
_CONFIGURATIONS = {SIMPLIFIED: "t2s", TRADITIONAL: "s2t", TAIWAN: "s2tw", HONG_KONG: "s2hk"}
SPOKEN = (None, "zh", "yue")
"""Languages whose words are converted: Japanese has its own characters."""


@cache
def convert_to(written: str) -> Rewrite | None:
    """None: OpenCC is not installed."""
    try:
        from opencc import OpenCC
    except ModuleNotFoundError:
        return None
    converter = OpenCC(_CONFIGURATIONS[written])
    return lambda text: text if text.isascii() else str(converter.convert(text))


@cache
def both(first: Rewrite, second: Rewrite) -> Rewrite:
    """One after the other; the same object for the same two."""
    return lambda text: second(first(text))
