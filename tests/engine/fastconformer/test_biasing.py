"""Key terms in the transducer: label looping against the plain loop, and through the recogniser."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from ssasr.engine.fastconformer.biasing import BOOST, MOST, Edges, TermSlots
from ssasr.engine.fastconformer.checkpoint import load_model
from ssasr.engine.fastconformer.transducer import decode
from ssasr.engine.keyterms import Trie
from ssasr.engine.recognizer import SegmentStart, Work
from ssasr.protocol.recognition import StreamOptions
from tests.engine.fastconformer.test_transducer import decode_plainly, emitted, row, texts


@pytest.fixture(scope="module")
def model(english):
    return load_model(english[1], torch.device("cpu"), torch.float32)


def spell(text):
    """Terms whose tokens are written in them."""
    return [int(part) for part in text.lower().split("-")]


def plainly(model, frames, text, terms, node=0):
    """One row, frame by frame, with the trie as it is."""
    trie = Trie.of(spell(term) for term in terms)
    given = [0.0] * len(trie.children)
    raised = {}
    for parent, children in enumerate(trie.children):
        for token, child in children.items():
            raised[parent, token] = min(given[parent] + BOOST, MOST)
            given[child] = 0.0 if trie.ends[child] else raised[parent, token]

    def choose(scores, token):
        nonlocal node
        best = float(scores[token])
        for (parent, other), more in raised.items():
            if parent in (0, node) and float(scores[other]) + more > best:
                token, best = other, float(scores[other]) + more
        node = trie.step(node, token)
        return token

    found, _ = decode_plainly(model, frames, text, choose)
    return found, node


@pytest.mark.parametrize(
    "terms", [(), ("3-4-5", "3-4-9-1", "7"), ("1-2", "2-3", "3-1", "8-8-8-8-8")]
)
@torch.no_grad()
def test_label_looping_equals_the_plain_loop(model, terms):
    generator = torch.Generator().manual_seed(len(terms))
    batch = 48
    frames = torch.randn(batch, 4, 40, generator=generator) * 3.0
    counts = torch.randint(0, 5, (batch,), generator=generator)
    before = texts(model, torch.randint(0, 20, (batch, 2), generator=generator))
    slots, slot = TermSlots.allocate(batch, 3, torch.device("cpu")), torch.arange(batch)
    for number in range(batch):
        slots.put(number, Edges.of(terms, spell))
    decoding = decode(model, frames, counts, before, slots.get(slot, torch.zeros_like(slot)))
    plain = decode(model, frames, counts, before)
    for number in range(batch):
        expected, node = plainly(
            model, frames[number, : counts[number]], row(before, number), terms
        )
        assert emitted(decoding, number) == expected
        assert int(decoding.biasing.node[number]) == node
    same = all(emitted(decoding, n) == emitted(plain, n) for n in range(batch))
    assert same == (not terms), "a list has an effect, and none has none"


def test_a_place_is_kept_from_chunk_to_chunk_and_can_be_gone_back_to():
    slots = TermSlots.allocate(3, 3, torch.device("cpu"))
    slots.put(1, Edges.of(("3-4",), spell))
    slot, chunk = torch.tensor([1]), torch.tensor([0])
    biasing = slots.get(slot, chunk)
    biasing.move(torch.tensor([True]), torch.tensor([3]))
    slots.keep(slot, chunk + 1, biasing)
    assert slots.get(slot, chunk + 1).node.tolist() == [1]
    assert slots.get(slot, chunk).node.tolist() == [0]
    slots.put(1, Edges.of(("4-3",), spell))
    assert slots.get(slot, chunk + 1).node.tolist() == [0], "it stood in another list"


def said(recognizer, audio, terms, others=()):
    """``others``: lists of streams that are stepped beside it."""
    states = [
        recognizer.new_state(StreamOptions(keyterms=each), SegmentStart(0))
        for each in (terms, *others)
    ]
    chunk = recognizer.chunk
    whole = len(audio) // chunk * chunk
    for at in range(0, whole, chunk):
        recognizer.step([Work(state, audio[at : at + chunk]) for state in states])
    outcomes = recognizer.step([Work(state, audio[whole:], len(audio)) for state in states])
    words = outcomes[0].results[-1].words
    return [(word.text, word.start, word.end) for word in words]


def test_a_list_is_a_streams_own_and_changes_with_it(make_recognizer, english):
    recognizer = make_recognizer(english[1], 2)
    audio = np.random.default_rng(1).standard_normal(3 * 16_000).astype(np.float32) * 0.3
    plain = said(recognizer, audio, ())
    table = recognizer._piece_table.table
    words = [piece.text for piece in table if piece.starts_word and piece.text][:12]
    terms = tuple(" ".join(two) for two in pairwise(words))
    assert any(recognizer._piece_table.encode(term) for term in terms)
    alone = said(recognizer, audio, terms)
    assert alone != plain
    assert said(recognizer, audio, terms, ((), terms[:3])) == alone
    assert said(recognizer, audio, (), (terms,)) == plain
    assert said(recognizer, audio, ("☃☃", "\u4e2d\u6587")) == plain, "what it cannot spell"
