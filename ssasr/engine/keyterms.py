"""Key terms as a trie over the tokens that a model spells them with.

Pure: a list of terms and an encoder in, a trie out (``fastconformer.biasing``). Whisper compares
whole texts instead (``whisper.biasing``)."""

from collections.abc import Callable, Iterable, Sequence

from attrs import define, field

ROOT = 0


@define
class Trie:
    """Nodes are numbered from ``ROOT``; a node is what has been written of one or more terms."""

    children: list[dict[int, int]] = field(factory=lambda: [{}])
    """Of each node: the tokens that go on, and the nodes they lead to."""
    ends: list[bool] = field(factory=lambda: [False])
    """Whether a term is whole at the node."""

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
            node = following
        if tokens:
            self.ends[node] = True

    def step(self, node: int, token: int) -> int:
        """Where a text stands after one more token: further in the term, else in one that begins
        with this token, else nowhere."""
        following = self.children[node].get(token)
        return self.children[ROOT].get(token, ROOT) if following is None else following


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
