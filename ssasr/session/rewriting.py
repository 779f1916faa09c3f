"""What a client's settings make of the words that a model wrote: profanity hidden, Chinese written
in one way. Whatever else is to change words goes here; turns and transcript do not know what."""

from collections.abc import Callable, Sequence

from ssasr.protocol.settings import TurnSettings
from ssasr.session import chinese, profanity

Rewrite = Callable[[Sequence[str]], Sequence[str]]
"""The words of a segment to as many that are shown; what becomes of one may depend on the
others."""


def rewriting(settings: TurnSettings, language: str | None) -> Rewrite | None:
    """For words in ``language``, a code or None if it is not known. None: they stay as they are."""
    if not settings.filter_profanity and settings.chinese is None:
        return None
    steps: list[Rewrite] = []
    if settings.filter_profanity:
        steps.append(profanity.hide(settings.languages or (language or "en",)))
    if settings.chinese is not None and language in chinese.SPOKEN:
        convert = chinese.convert_to(settings.chinese)
        steps += [] if convert is None else [convert]

    def rewrite(words: Sequence[str]) -> Sequence[str]:
        for step in steps:
            words = step(words)
        return words

    return rewrite if steps else None
