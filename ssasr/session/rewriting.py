"""What a client's settings make of the words that a model wrote: profanity hidden, Chinese written
in one way. Whatever else is to change words goes here; turns and transcript do not know what."""

from collections.abc import Callable, Sequence

from attrs import define, field

from ssasr.protocol.settings import TurnSettings
from ssasr.session import chinese, profanity

Rewrite = Callable[[Sequence[str]], Sequence[str]]
"""The words of a segment to as many that are shown; what becomes of one may depend on the
others."""


@define(eq=False)
class Rewriting:
    """Of one session."""

    _languages: tuple[str, ...] = ()
    _hidden: dict[str, str] = field(factory=dict)
    """Words in those languages, and what is shown of each."""

    def of(self, settings: TurnSettings, language: str | None) -> Rewrite | None:
        """For words in ``language``, a code or None if it is not known. None: they stay."""
        if not settings.filter_profanity and settings.chinese is None:
            return None
        steps: list[Rewrite] = []
        if settings.filter_profanity:
            steps.append(self._hide(settings.languages or (language or "en",)))
        if settings.chinese is not None and language in chinese.SPOKEN:
            convert = chinese.convert_to(settings.chinese)
            steps += [] if convert is None else [convert]

        def rewrite(words: Sequence[str]) -> Sequence[str]:
            for step in steps:
                words = step(words)
            return words

        return rewrite if steps else None

    def _hide(self, languages: tuple[str, ...]) -> Rewrite:
        """Each word is looked at once: a turn has all its words in every update."""
        if languages != self._languages:
            self._languages, self._hidden = languages, {}
        hide, hidden = profanity.hide(languages), self._hidden

        def shown(word: str) -> str:
            return hidden[word] if word in hidden else hidden.setdefault(word, hide(word))

        return lambda words: [shown(word) for word in words]
