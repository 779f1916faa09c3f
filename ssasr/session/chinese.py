"""One way of writing Chinese throughout a session, whichever the model happens to use.

Models mix Simplified and Traditional characters, at times in one sentence. The characters are
OpenCC's (Apache-2.0), an extra (``pip install ssasr[chinese]``); without it the text stays as the
model writes it. What a character becomes may depend on its neighbours, and they may stand in
another word: 发 is 髮 in 头发 and 發 in 发现.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate, pairwise

from ssasr.protocol.chinese import HONG_KONG, SIMPLIFIED, TAIWAN, TRADITIONAL

_CONFIGURATIONS = {SIMPLIFIED: "t2s", TRADITIONAL: "s2t", TAIWAN: "s2tw", HONG_KONG: "s2hk"}
SPOKEN = (None, "zh", "yue")
"""Languages whose words are converted: Japanese has its own characters."""


@cache
def convert_to(written: str) -> Callable[[Sequence[str]], Sequence[str]] | None:
    """What is shown of the words of a segment. None: OpenCC is not installed."""
    try:
        from opencc import OpenCC
    except ModuleNotFoundError:
        return None
    converter = OpenCC(_CONFIGURATIONS[written])

    def convert(words: Sequence[str]) -> Sequence[str]:
        text = "".join(words)
        if text.isascii():
            return words
        shown = converter.convert(text)
        if len(shown) != len(text):  # a phrase of another length: nobody knows whose it is
            return [converter.convert(word) for word in words]
        ends = list(accumulate(map(len, words), initial=0))
        return [shown[start:end] for start, end in pairwise(ends)]

    return convert
