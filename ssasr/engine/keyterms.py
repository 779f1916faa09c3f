"""Key terms as a trie over the tokens that a model spells them with.

Pure: a list of terms and an encoder in, a trie out. Both kinds of models walk it, each in its own
way (``whisper.biasing``, ``fastconformer.biasing``)."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

ROOT = 0
MOST_BEGINNINGS = 640
"""Tokens with which terms may begin: a hundred terms in three casings, with a space and without."""
MOST_GOING_ON = 128
"""Tokens that may go on from one node; of more, those that came last are not looked for."""
Tokens = NDArray[np.int64]
_NONE: Tokens = np.zeros(0, np.int64)


@define
class Trie:
    """Nodes are numbered from ``ROOT``; a node is what has been written of one or more terms."""

    children: list[dict[int, int]] = field(factory=lambda: [{}])
    """Of each node: the tokens that go on, and the nodes they lead to."""
    ends: list[bool] = field(factory=lambda: [False])
    """Whether a term is whole at the node."""
    longest: list[int] = field(factory=lambda: [0])
    """Tokens of the longest term that begins with what the node stands for."""
    _arrays: dict[int, Tokens] = field(factory=dict)

    @classmethod
    def of(cls, spellings: Iterable[Sequence[int]]) -> "Trie":
        trie = cls()
        for tokens in spellings:
            trie._add(tokens)
        return trie

    def _add(self, tokens: Sequence[int]) -> None:
        node = ROOT
        for token in tokens:
            following = self.children[node].get(token)
            if following is None:
                following = len(self.children)
                self.children[node][token] = following
                self.children.append({})
                self.ends.append(False)
                self.longest.append(0)
            node = following
            self.longest[node] = max(self.longest[node], len(tokens))
        if tokens:
            self.ends[node] = True

    def step(self, node: int, token: int) -> int:
        """Where a text stands after one more token: further in the term, else in one that begins
        with this token, else nowhere."""
        following = self.children[node].get(token)
        return self.children[ROOT].get(token, ROOT) if following is None else following

    def continuations(self, node: int) -> Tokens:
        """The tokens that go on from the node."""
        if not self.children[node]:
            return _NONE
        found = self._arrays.get(node)
        if found is None:
            tokens = list(self.children[node])[: MOST_BEGINNINGS if node == ROOT else MOST_GOING_ON]
            found = self._arrays[node] = np.array(tokens, np.int64)
        return found

    def ahead(self, node: int) -> list[int]:
        """The tokens that must follow until a term is whole or there is a choice."""
        tokens = []
        while not self.ends[node] and len(self.children[node]) == 1:
            ((token, node),) = self.children[node].items()
            tokens.append(token)
        return tokens


def casings(term: str) -> tuple[str, ...]:
    """The term as it may be written: as it was given, in lower case, at the start of a sentence."""
    return tuple(dict.fromkeys([term, term[:1].upper() + term[1:], term.lower()]))


def spellings(
    terms: Iterable[str], encode: Callable[[str], Sequence[int]], leads: Sequence[str]
) -> list[tuple[int, ...]]:
    """Every way in which the model may write the terms; ``leads``: what may stand before them."""
    found = {
        tuple(encode(lead + cased)): None
        for term in terms
        for cased in casings(" ".join(term.split()))
        for lead in leads
    }
    return [tokens for tokens in found if tokens]
