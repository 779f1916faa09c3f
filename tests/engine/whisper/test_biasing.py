"""Key terms in greedy decoding: what they may change, and what they may not."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssasr.engine.keyterms import Trie
from ssasr.engine.whisper.biasing import Biasing, Rivals, Terms
from ssasr.engine.whisper.decoding import PADDING, Decoding, Request
from ssasr.engine.whisper.graph_passes import GraphPasses
from ssasr.engine.whisper.passes import Inputs
from tests.engine.recorder import LateRecorder
from tests.engine.whisper import tiny
from tests.engine.whisper.test_decoding import LOUD, same

TEXT = len(tiny.WORDS)
FAR = float("inf")


@pytest.fixture(scope="module")
def plain():
    return tiny.decoding(cut_loops=False)


@pytest.fixture(scope="module")
def replayed():
    network, words = tiny.network()
    passes = GraphPasses(network, LateRecorder(), (4,), (100,), (16,))
    passes.warm_up()
    return Decoding(passes, words, cut_loops=False)


spelled = st.lists(st.integers(0, TEXT - 1), min_size=1, max_size=4)
lists = st.lists(spelled, min_size=1, max_size=40)
strengths = st.sampled_from([0.5, 2.0])
few = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))


def request(clip, terms, strength, draft=()):
    found = Terms(Trie.of(terms), strength) if terms else None
    return Request(LOUD[clip], "en", tuple(draft), terms=found)


@pytest.mark.slow
@few
@given(clip=st.integers(0, 3), terms=lists)
def test_a_strength_of_nothing_changes_nothing(plain, clip, terms):
    (without,), (with_terms,) = plain([request(clip, [], 0)]), plain([request(clip, terms, 0.0)])
    same(with_terms, without)


@pytest.mark.slow
@few
@given(data=st.data(), terms=lists, strength=strengths)
def test_a_draft_changes_nothing(plain, data, terms, strength):
    clip = data.draw(st.integers(0, 3))
    (scratch,) = plain([request(clip, terms, strength)])
    draft = list(scratch.tokens)
    for _ in range(data.draw(st.integers(0, 3))):
        at, cut = data.draw(st.integers(0, len(draft))), data.draw(st.integers(0, 3))
        draft[at : at + cut] = data.draw(spelled)
    same(plain([request(clip, terms, strength, draft)])[0], scratch)
    same(
        plain([request(clip, terms, strength, plain([request(clip, [], 0)])[0].tokens)])[0], scratch
    )


@pytest.mark.slow
@settings(few, max_examples=4)
@given(clips=st.lists(st.tuples(st.integers(0, 3), lists, strengths), min_size=2, max_size=4))
def test_a_batch_and_replays_change_nothing(plain, replayed, clips):
    requests = [request(*each) for each in clips] + [request(0, [], 0)]
    alone = [plain([each])[0] for each in requests]
    for found in (plain(requests), replayed(requests[:4])):
        for one, other in zip(found, alone, strict=False):
            same(one, other)


def written(tokens, terms):
    """Places that belong to a term that is whole in the text."""
    places = set()
    for term in terms:
        for at in range(len(tokens) - len(term) + 1):
            if list(tokens[at : at + len(term)]) == list(term):
                places.update(range(at, at + len(term)))
    return places


@pytest.mark.slow
@few
@given(clip=st.integers(0, 3), terms=lists, strength=strengths)
def test_nothing_but_whole_terms_leaves_greedys_way(plain, clip, terms, strength):
    """A text that was decoded with terms is greedy's own wherever none of them stands: decoded as a
    draft, the tokens outside of terms are what greedy decoding chooses after those before them."""
    (found,) = plain([request(clip, terms, strength)])
    inside = written(found.tokens, terms)
    audio = LOUD[clip]
    batch = plain.passes.begin([plain._excerpt(Request(audio, "en"), PADDING)], 150)
    prefix = plain._vocabulary.prefix("en")
    (outputs,) = batch.read([Inputs([*prefix, *found.tokens], len(prefix), 0)])
    for place, (token, (best, _)) in enumerate(zip(found.tokens, outputs.choices, strict=False)):
        assert token == best or place in inside


@pytest.mark.slow
def test_a_term_that_nearly_was_written_is_written(plain):
    (without,) = plain([request(0, [], 0)])
    other = next(token for token in range(TEXT) if token not in without.tokens)
    (found,) = plain([request(0, [(other,)], 30.0)])
    assert other in found.tokens


def walk(terms, strength, choices):
    """What is written: greedy's choices as (token, rivals) by the text before them."""
    biasing, text, steps = Biasing(Terms(Trie.of(terms), strength)), [], 0
    while len(text) < 6:
        steps += 1
        assert steps < 50
        token, begin, go_on = choices(tuple(text))
        taken = biasing.take(token, -1.0, Rivals(begin, go_on), len(text), 0, leave=token < 50)
        if taken is None:
            del text[biasing.left.place :]
            taken = biasing.give_up()
        text.append(taken[0])
    return text


def test_what_was_given_to_a_term_is_taken_back_in_full():
    """7 8 9 is a term; after 7 8 the model will not hear of 9."""

    def choices(text):
        known = {
            (1,): (2, [(7, 1.5)], []),
            (1, 7): (3, [(7, FAR)], [(8, 1.0)]),
            (1, 7, 8): (4, [(7, FAR)], [(9, 2.0)]),
        }
        return known.get(text, (len(text) + 1, [(7, FAR)], []))

    assert walk([(7, 8, 9)], 4.0, choices) == [1, 2, 3, 4, 5, 6]
    assert walk([(7, 8, 9)], 4.5, choices) == [1, 7, 8, 9, 5, 6]


def test_a_longer_term_that_fails_leaves_the_shorter_one():
    def choices(text):
        known = {
            (): (1, [(7, 1.0)], []),
            (7,): (8, [(7, FAR)], [(8, 0.0)]),
            (7, 8): (3, [(7, FAR)], [(9, 9.0)]),
        }
        return known.get(text, (len(text) + 1, [(7, FAR)], []))

    assert walk([(7, 8), (7, 8, 9)], 3.0, choices) == [7, 8, 3, 4, 5, 6]


def test_a_path_that_is_greedys_own_costs_nothing_and_hides_no_other_term():
    """5 6 is a term that greedy decoding begins by itself; 7 begins another after it."""

    def choices(text):
        known = {(): (5, [(5, 0.0), (7, 9.0)], []), (5,): (2, [(7, 1.0)], [(6, 5.0)])}
        return known.get(text, (3, [(7, FAR)], []))

    assert walk([(5, 6), (7,)], 2.0, choices)[:3] == [5, 7, 3]
    assert walk([(5, 6), (7,)], 1.9, choices)[:3] == [5, 2, 3], "half of it for the first step"


def test_where_one_term_fails_the_next_is_tried():
    """Both 6 6 and 7 8 may begin, but only the latter goes on."""

    def choices(text):
        known = {
            (): (1, [(6, 1.0), (7, 2.0)], []),
            (6,): (1, [], [(6, FAR)]),
            (7,): (2, [], [(8, 1.0)]),
        }
        return known.get(text, (3, [], []))

    assert walk([(6, 6), (7, 8)], 4.0, choices)[:3] == [7, 8, 3]
    assert walk([(6, 6), (7, 8)], 3.9, choices)[:2] == [1, 3]


def test_no_term_is_written_instead_of_a_mark():
    def choices(text):
        return (60 if text == () else 2), [(7, 0.5)] if len(text) < 2 else [], []

    assert walk([(7,)], 2.0, choices)[:3] == [60, 7, 2]


def test_marks_are_what_has_neither_letter_nor_digit():
    tokenizer = tiny.tokenizer()
    assert {tokenizer.decode([mark]) for mark in tokenizer.marks} == {"", ".", ",", "!"}
