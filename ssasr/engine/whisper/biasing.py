"""Key terms in greedy decoding.

Greedy decoding takes the likeliest token. Where a term of the stream's list could begin or continue
instead, its token may be chosen although it is less likely, as long as the cost (the difference of
natural log probabilities, summed over the term) stays within ``strength``. If the term cannot be
completed within that cost, decoding goes back to where it left the greedy path and continues with
the greedy token. So a list changes the text only where a whole term appears in it, and a strength
of 0 changes nothing.

The cost is computed from the model's own probabilities, so each decision depends only on the text
before it, and not on the draft or on other rows of the batch.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import inf
from typing import NamedTuple

import numpy as np
from attrs import define, evolve, frozen
from numpy.typing import NDArray

from ssasr.engine.keyterms import ROOT, Tokens, Trie, spellings
from ssasr.engine.tokenizers import WhisperTokenizer

STRENGTH = 6.0
"""The most that a term may cost. At 10, terms that were not spoken replaced common words."""
RANKED = 1
"""Tokens of each kind that are looked at in one place; each that comes to nothing costs a pass."""

Ranked = Sequence[tuple[int, float]]
"""Tokens, each with how far its logarithm is below that of the likeliest of all; the likeliest
first."""


class Rivals(NamedTuple):
    """The likeliest tokens with which a term begins, and those that go on with one."""

    begin: Ranked
    go_on: Ranked


class Offers(NamedTuple):
    """What a row's terms offer in one pass: the tokens with which they begin, and, for each place
    that a choice is asked for, those that go on."""

    beginnings: Tokens
    continuations: Sequence[Tokens]


@frozen
class Terms:
    """A stream's list, in the tokens of the model."""

    trie: Trie
    strength: float

    @property
    def beginnings(self) -> Tokens:
        return self.trie.continuations(ROOT)

    @property
    def entry(self) -> float:
        """What may be given to the token with which greedy's way is left: half, because each that
        comes to nothing costs a pass, and because nothing may follow that shows it was meant."""
        return self.strength / 2


@frozen
class _Left:
    """Where a text left greedy's way, and what it may write there instead of what it has tried."""

    place: int
    node: int
    """Where it stood in its terms."""
    token: int
    """Greedy's."""
    logprob: float
    cursor: int
    """How far into the draft the text had come."""
    others: Ranked
    """Not tried yet."""


@define
class Biasing:
    """Where one text stands in its terms."""

    terms: Terms
    node: int = ROOT
    cost: float = 0.0
    left: _Left | None = None

    def offers(self, draft: Sequence[int]) -> Offers:
        """For the places after what has been written and after each token of the draft."""
        trie, node = self.terms.trie, self.node
        continuations = [trie.continuations(node)]
        for token in draft:
            node = trie.step(node, token)
            continuations.append(trie.continuations(node))
        return Offers(self.terms.beginnings, continuations)

    def take(
        self, token: int, logprob: float, rivals: Rivals, place: int, cursor: int, *, leave: bool
    ) -> tuple[int, float] | None:
        """The token to write at ``place`` and its log probability, given greedy's. None: go back to
        where greedy's way was left (``give_up``). ``leave``: whether it may be left here."""
        if self.left is not None:
            further, cost = rivals.go_on[0] if rivals.go_on else (token, inf)
            if cost > self.terms.strength - self.cost:
                return None
            self._step(further, cost)
            return further, logprob - cost
        worth = self._worth_trying(token, rivals) if leave else ()
        if not worth:
            self._step(token, 0.0)
            return token, logprob
        self.left = _Left(place, self.node, token, logprob, cursor, worth)
        return self.give_up()

    def _worth_trying(self, token: int, rivals: Rivals) -> Ranked:
        """What goes on with a term comes before what begins one. Nothing, where greedy's own token
        goes on."""
        if token in self.terms.trie.children[self.node]:
            return ()
        ranked = [*rivals.go_on, *rivals.begin]
        return [(rival, cost) for rival, cost in ranked if 0.0 < cost <= self.terms.entry]

    def _step(self, token: int, cost: float) -> None:
        trie = self.terms.trie
        self.node = trie.step(self.node, token)
        self.cost += cost
        if trie.ends[self.node]:  # it came true
            self.cost, self.left = 0.0, None

    def give_up(self) -> tuple[int, float]:
        """What to write where greedy's way was left: what has not been tried there, or greedy's own
        token, with its log probability."""
        left = self.left
        assert left is not None, "there is a way back"
        self.node, self.cost = left.node, 0.0
        if left.others:
            (token, cost), *others = left.others
            self.left = evolve(left, others=others)
        else:
            token, cost, self.left = left.token, 0.0, None
        self._step(token, cost)
        return token, left.logprob - cost

    @property
    def ahead(self) -> list[int]:
        """What the term that was begun against greedy's choice goes on with."""
        return [] if self.left is None else self.terms.trie.ahead(self.node)


@lru_cache(maxsize=256)
def terms_of(
    keyterms: tuple[str, ...], tokenizer: WhisperTokenizer, strength: float = STRENGTH
) -> Terms | None:
    """A stream's terms; None if there are none. Streams with the same list share it."""
    trie = Trie.of(spellings(keyterms, tokenizer.encode, (" ", "")))
    return Terms(trie, strength) if len(trie.children) > 1 and strength > 0 else None


def rivals(logits: NDArray[np.float32], best: NDArray[np.float32], offers: Offers) -> list[Rivals]:
    """What the terms have to say of these places: logits (n, vocabulary), the largest of each (n,)
    before they are spoilt."""
    return [
        Rivals(
            _rank(logits[place], best[place], offers.beginnings),
            _rank(logits[place], best[place], tokens),
        )
        for place, tokens in enumerate(offers.continuations)
    ]


def _rank(logits: NDArray[np.float32], best: np.float32, tokens: Tokens) -> Ranked:
    if not len(tokens):
        return ()
    values = logits[tokens]
    order = np.argpartition(-values, min(RANKED, len(tokens) - 1))[:RANKED]
    ranked = sorted((float(best - values[place]), int(tokens[place])) for place in order)
    return [(token, cost) for cost, token in ranked]
