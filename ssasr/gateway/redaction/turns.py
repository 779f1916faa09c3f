"""A session's Turns with what is personal taken out: the last thing that happens to a message
before it is sent, and before anything else sees it.

Words stay in place: each hidden one becomes one token, with its times and its confidence. A final
Turn is judged whole, with the end of what was said before it in view, so that a number that goes on
in the next turn is still seen as one. A partial ends before the words that what follows could still
turn into something personal.
"""

import re
from collections.abc import Awaitable, Callable, Sequence

from attrs import define, evolve, field

from ssasr.gateway.redaction.policies import NUMBERS, Finding, policies_of
from ssasr.gateway.redaction.spoken import Kind, read
from ssasr.protocol.joining import join
from ssasr.protocol.messages import (
    RevisedTurn,
    SessionMessage,
    SpeakerRevision,
    Turn,
    TurnWord,
)
from ssasr.session.companion import Companion
from ssasr.session.formatting import plain

HELD_WORDS = 8
"""Words at the end of a partial that wait for what follows, at least."""
REMEMBERED = 16
"""Words of the last turns that are looked at again with the next."""
HASH = "####"
_PUNCTUATION = re.compile(r"[.,;:?!…]*$")

Find = Callable[[Sequence[str], frozenset[str]], Awaitable[list[Finding] | None]]


@define(eq=False)
class TurnRedactor(Companion):
    """One session's. Turns come with their words as the model writes them (casing helps to find
    names); ``always_formatted``: that is also how the client is shown partials."""

    find: Find
    policies: frozenset[str]
    substitution: str
    """``hash`` or ``entity_name``."""
    always_formatted: bool
    keep_turns: bool = False
    """The turns that were said will be said again, with other speakers."""
    _said: dict[int, tuple[str, ...]] = field(factory=dict)
    _before: list[str] = field(factory=list)
    """What was said last, as it was said."""
    _turn: int = -1
    _hidden: list[str | None] = field(factory=list)
    """Of the words of the turn that were shown as final: what each was hidden as, if it was."""
    _shown: tuple[str, ...] = ()

    async def __call__(self, message: SessionMessage) -> SessionMessage | None:
        """What is sent instead; None: nothing, as there is nothing new in it."""
        if isinstance(message, SpeakerRevision):
            return self._revised(message)
        if not isinstance(message, Turn):
            return message
        if message.turn_order != self._turn:
            self._turn, self._hidden, self._shown = message.turn_order, [], ()
        policies = await self._find_policies([word.text for word in message.words])
        if message.end_of_turn:
            self._remember(message)
            turn = self._masked(message, policies, len(message.words))
            if self.keep_turns:
                self._said[turn.turn_order] = tuple(word.text for word in turn.words)
            return turn
        return self._partial(message, policies)

    def _revised(self, revision: SpeakerRevision) -> SpeakerRevision:
        """With the texts that the turns were shown with."""

        def revised(turn: RevisedTurn) -> RevisedTurn:
            shown = self._said[turn.turn_order]
            words = zip(turn.words, shown, strict=True)
            return evolve(turn, words=tuple(evolve(word, text=text) for word, text in words))

        return SpeakerRevision(tuple(revised(turn) for turn in revision.revisions))

    def _remember(self, turn: Turn) -> None:
        said = [*self._before, *(word.text for word in turn.words)]
        self._before = said[-REMEMBERED:]

    async def _find_policies(self, words: list[str]) -> list[str | None]:
        """For each word the policy that hides it, or None."""
        offset = len(self._before)
        found = await self.find([*self._before, *words], self.policies)
        alone: list[Finding] | None = []
        if words and _number_continues(self._before[-1:], words[:1]):
            alone = await self.find(words, self.policies & NUMBERS)  # it may be a number of its own
        if found is None or alone is None:
            return [HASH] * len(words)
        policies = policies_of(found, self.policies, offset + len(words))[offset:]
        for index, policy in enumerate(policies_of(alone, self.policies, len(words))):
            policies[index] = policies[index] or policy
        for index, hidden in enumerate(self._hidden[: len(policies)]):
            policies[index] = policies[index] or hidden
        return policies

    def _partial(self, turn: Turn, policies: list[str | None]) -> Turn | None:
        length = settled([word.text for word in turn.words], policies)
        partial = self._masked(turn, policies, length)
        if (shown := tuple(word.text for word in partial.words)) == self._shown:
            return None
        self._shown = shown
        final = 0
        while final < length and turn.words[final].word_is_final:
            final += 1
        self._hidden += policies[len(self._hidden) : final]
        return partial

    def _masked(self, turn: Turn, policies: list[str | None], length: int) -> Turn:
        """Its first ``length`` words, hidden where they must be."""
        written = turn.turn_is_formatted or self.always_formatted
        words = tuple(
            evolve(word, text=self._shown_as(word, policy, written))
            for word, policy in zip(turn.words[:length], policies, strict=False)
        )
        finals_only = not turn.end_of_turn and any(word.word_is_final for word in words)
        text = join([word.text for word in words if word.word_is_final or not finals_only])
        utterance = text if turn.end_of_turn else ""
        return evolve(turn, words=words, transcript=text, utterance=utterance)

    def _shown_as(self, word: TurnWord, policy: str | None, written: bool) -> str:
        if policy is None:
            return word.text if written else plain(word.text)
        named = self.substitution == "entity_name" and policy != HASH
        token = f"[{policy.upper()}]" if named else HASH
        punctuation = _PUNCTUATION.search(word.text)
        return token + punctuation[0] if written and punctuation else token


def _number_continues(before: Sequence[str], first: Sequence[str]) -> bool:
    """Whether a number may go from one turn into the next."""
    return all(any(atom.code for atom in read(words)) for words in (before, first))


def settled(words: Sequence[str], policies: Sequence[str | None]) -> int:
    """How many words of a turn that goes on can be shown: what follows cannot change them."""
    suspicious = [True] * len(words)  # also what is no word: it may lie within a number
    for atom in read(words):
        capital = atom.capital and atom.first > 0
        plain = not (atom.code or capital or atom.kind is not Kind.WORD)
        for index in range(atom.first, atom.last + 1):
            suspicious[index] = not plain or policies[index] is not None
    length = max(len(words) - HELD_WORDS, 0)
    while length > 0 and suspicious[length - 1]:
        length -= 1
    return length
