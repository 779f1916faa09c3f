"""Key terms in the transducer's greedy decoding: a tree of boosts for every slot.

A transducer that has emitted a token does not take it back, so a term is favoured step by step:
what goes on with it is raised by all that its tokens before have been given, and one more
``BOOST``, while what leaves it is not, which takes that back from whoever leaves. Only the choice
among tokens is moved, never that between a token and blank: a list writes words otherwise, it does
not make the model speak.

The trees lie on the device as edges, one row of fixed length a slot, and a stream's place in its
tree beside its text, in the same ring. A slot without terms has no edges, and its tokens are the
model's own to the bit. Nothing here looks at a value.
"""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import torch
from attrs import define, frozen
from numpy.typing import NDArray
from torch import Tensor

from ssasr.engine.keyterms import ROOT, Trie, spellings

BOOST = 1.5
"""Added to a token's score for each token of the term up to it. NVIDIA's boosting tree gives 1 to a
term's first token and 2 to each further one. Not measured with published weights, which could not
be had; a small model that knows nine texts finds nothing more with any from 0.5 to 3, and in noise
writes a term once too often in one recording of 15 with 0.5, of 5 with 1 to 2, of 3 with 3
(``benchmarks.transducer_terms``)."""
MOST = 6.0
"""No token is raised by more."""
EDGES = 2_048
"""Of one list; a hundred terms in three casings of some five tokens. Of more, the last are left
out."""
NO_PARENT = -1
"""Parent of an edge that is not there."""


@frozen
class Edges:
    """One list's tree, (EDGES,) each: from ``parents`` by ``tokens`` to ``children``, and what the
    token is raised by."""

    parents: NDArray[np.int32]
    tokens: NDArray[np.int64]
    children: NDArray[np.int32]
    boosts: NDArray[np.float32]

    @classmethod
    def of(
        cls, terms: Sequence[str], encode: Callable[[str], Sequence[int]], boost: float = BOOST
    ) -> Self:
        """None of them for no terms. A spelling that ``encode`` gives no tokens for is left out."""
        trie = Trie.of(spellings(terms, encode, ("",)))
        given = [0.0] * len(trie.children)
        rows = []
        for parent, following in enumerate(trie.children):  # parents come before their children
            for token, child in following.items():
                raised = min(given[parent] + boost, MOST)
                given[child] = 0.0 if trie.ends[child] else raised
                rows.append((parent, token, child, raised))
        rows = rows[:EDGES] + [(NO_PARENT, 0, ROOT, 0.0)] * (EDGES - len(rows))
        parents, tokens, children, boosts = zip(*rows, strict=True)
        return cls(
            np.array(parents, np.int32),
            np.array(tokens, np.int64),
            np.array(children, np.int32),
            np.array(boosts, np.float32),
        )


@define
class Biasing:
    """Of one batch: its rows' trees, (batch, EDGES) each, and where their texts stand (batch,)."""

    parents: Tensor
    tokens: Tensor
    children: Tensor
    boosts: Tensor
    node: Tensor

    def prefer(self, scores: Tensor, token: Tensor) -> Tensor:
        """The token to emit instead of the likeliest one (batch,), if a term makes up for the
        difference; ``scores``: (batch, vocabulary)."""
        here = (self.parents == self.node[:, None]) | (self.parents == ROOT)
        raised = scores.float().gather(1, self.tokens) + self.boosts
        value, edge = raised.masked_fill(~here, -torch.inf).max(dim=1)
        rival = self.tokens.gather(1, edge[:, None])[:, 0]
        return torch.where(value > scores.float().gather(1, token[:, None])[:, 0], rival, token)

    def move(self, emitted: Tensor, token: Tensor) -> None:
        """After the token, in the rows that emitted one: further in a term, else in one that
        begins with it, else nowhere."""
        match = self.tokens == token[:, None]
        further = self._reached(match & (self.parents == self.node[:, None]))
        begun = self._reached(match & (self.parents == ROOT))
        after = torch.where(further != ROOT, further, begun)
        torch.where(emitted, after, self.node, out=self.node)

    def part(self, rows: Tensor) -> Self:
        """Of some of the rows; a copy."""
        return type(self)(
            self.parents[rows], self.tokens[rows], self.children[rows], self.boosts[rows],
            self.node[rows],
        )  # fmt: skip

    def _reached(self, edges: Tensor) -> Tensor:
        return torch.where(edges, self.children, ROOT).amax(dim=1).long()


@frozen
class TermSlots:
    """The trees and places of all slots; rows as in ``slots.Slots``."""

    parents: Tensor
    tokens: Tensor
    children: Tensor
    boosts: Tensor
    nodes: Tensor
    """(rows, text ring) int64: the place before chunk k is at k modulo the ring."""

    @classmethod
    def allocate(cls, rows: int, ring: int, device: torch.device) -> Self:
        """Without terms."""
        shape = (rows, EDGES)
        return cls(
            torch.full(shape, NO_PARENT, dtype=torch.int32, device=device),
            torch.zeros(shape, dtype=torch.int64, device=device),
            torch.zeros(shape, dtype=torch.int32, device=device),
            torch.zeros(shape, dtype=torch.float32, device=device),
            torch.zeros(rows, ring, dtype=torch.int64, device=device),
        )

    def put(self, slot: int, edges: Edges) -> None:
        """A new list for the slot, whose text stands nowhere in it."""
        for row, values in (
            (self.parents, edges.parents), (self.tokens, edges.tokens),
            (self.children, edges.children), (self.boosts, edges.boosts),
        ):  # fmt: skip
            row[slot].copy_(torch.from_numpy(values))
        self.nodes[slot].zero_()

    def get(self, slot: Tensor, chunk: Tensor) -> Biasing:
        """Of these slots (batch,), as before ``chunk`` (batch,)."""
        node = torch.where(chunk == 0, ROOT, self.nodes[slot, chunk % self.nodes.shape[1]])
        return Biasing(
            self.parents[slot], self.tokens[slot], self.children[slot], self.boosts[slot], node
        )

    def keep(self, slot: Tensor, chunk: Tensor, biasing: Biasing) -> None:
        """The places before ``chunk``."""
        self.nodes.index_put_((slot, chunk % self.nodes.shape[1]), biasing.node)
