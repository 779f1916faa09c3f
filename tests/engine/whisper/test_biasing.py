"""Key terms in greedy decoding: what they may change, and what they may not."""

from itertools import chain, pairwise
from math import log

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssasr.engine.tokenizers import WhisperTokenizer, _byte_of_stand_in
from ssasr.engine.whisper.biasing import (
    KNOWN,
    LONGEST,
    STRENGTH,
    USUAL_WORD,
    WIDEST,
    Trial,
    gain,
    terms_of,
)
from ssasr.engine.whisper.decoding import Decoding, Request
from ssasr.engine.whisper.graph_passes import GraphPasses
from tests.engine.recorder import LateRecorder
from tests.engine.whisper import tiny
from tests.engine.whisper.test_decoding import LOUD, same

TEXT = len(tiny.WORDS)
ENDS = 8
"""The seed of a model whose texts end by themselves: others are cut, and no term is tried in them.
"""
UNSURE = -2.0


@pytest.fixture(scope="module")
def plain():
    return tiny.decoding(cut_loops=False, seed=ENDS)


@pytest.fixture(scope="module")
def replayed():
    network, words = tiny.network(seed=ENDS)
    passes = GraphPasses(network, LateRecorder(), (4,), (100,), (48,))
    passes.warm_up()
    return Decoding(passes, words, cut_loops=False)


phrase = st.lists(st.sampled_from(tiny.WORDS), min_size=1, max_size=3).map("".join)
lists = st.lists(phrase, min_size=1, max_size=40).map(tuple)
strengths = st.sampled_from([1.0, 4.0, 40.0])
few = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
TOKENIZER = tiny.tokenizer()


def request(clip, terms=(), strength=1.0, draft=()):
    found = terms_of(terms, TOKENIZER, strength) if terms else None
    return Request(LOUD[clip], "en", tuple(draft), terms=found)


def test_a_strength_of_nothing_is_no_list():
    assert terms_of(("Kubernetes",), TOKENIZER, 0.0) is None
    assert terms_of(("...", " "), TOKENIZER, STRENGTH) is None


@pytest.mark.slow
@few
@given(clip=st.integers(0, 3))
def test_a_list_that_nothing_sounds_like_changes_nothing(plain, clip):
    (without,), (listed,) = (
        plain([request(clip, terms, 40.0)]) for terms in [(), ("xylophone", "wizard")]
    )
    same(listed, without)


@pytest.mark.slow
@few
@given(data=st.data(), terms=lists, strength=strengths)
def test_a_draft_changes_nothing(plain, data, terms, strength):
    clip = data.draw(st.integers(0, 3))
    (scratch,) = plain([request(clip, terms, strength)])
    draft = list(scratch.draft(0, len(scratch.tokens)))
    for _ in range(data.draw(st.integers(0, 3))):
        at, cut = data.draw(st.integers(0, len(draft))), data.draw(st.integers(0, 3))
        draft[at : at + cut] = data.draw(st.lists(st.integers(0, TEXT - 1), max_size=3))
    same(plain([request(clip, terms, strength, draft)])[0], scratch)
    same(plain([request(clip, terms, strength, scratch.tokens)])[0], scratch)


@pytest.mark.slow
@settings(few, max_examples=5)
@given(clips=st.lists(st.tuples(st.integers(0, 3), lists, strengths), min_size=2, max_size=3))
def test_a_batch_and_replays_change_nothing(plain, replayed, clips):
    requests = [request(*each) for each in clips] + [request(0)]
    alone = [plain([each])[0] for each in requests]
    for found in (plain(requests), replayed(requests)):
        for one, other in zip(found, alone, strict=True):
            same(one, other)


@pytest.mark.slow
@few
@given(clip=st.integers(0, 3), terms=lists, strength=strengths)
def test_all_but_the_terms_is_greedys_own(plain, clip, terms, strength):
    (without,), (listed,) = plain([request(clip)]), plain([request(clip, terms, strength)])
    assert listed.draft(0, len(listed.tokens)) == without.tokens
    if not listed.greedy:
        same(listed, without)
        return
    assert len(listed.greedy) == len(listed.tokens) == len(listed.logprobs)
    assert listed.scores.shape[1] == listed.skip + 1 + len(listed.tokens)
    spelled = {tuple(TOKENIZER.encode(term)) for term in terms}
    place = 0
    for token, greedy in zip(listed.tokens, listed.greedy, strict=True):
        if greedy == (token,):
            place += 1
            continue
        others = any(listed.tokens[place : place + len(one)] == one for one in spelled)
        assert not greedy or others, "a term begins where greedy wrote something else"
        place += 1


@pytest.mark.slow
def test_a_term_that_sounds_like_it_is_written_and_how_sure_it_is(plain):
    (without,) = plain([request(0)])
    assert without.complete
    texts = [TOKENIZER.decode([token]) for token in without.tokens]
    other = next(text for text in tiny.WORDS if text not in texts and text + "n" not in texts)
    near = next(text for text in texts if text[1:2] == other[1:2])
    assert near != other
    (found,) = plain([request(0, (other,), 400.0)])
    assert other in TOKENIZER.decode(found.tokens)
    (place, *_) = [at for at, token in enumerate(found.tokens) if (token,) != found.greedy[at]]
    assert np.exp(found.logprobs[place]) > 0.99


# -- what is tried, in a vocabulary of bytes


def _letters():
    stand_ins = {byte: character for character, byte in _byte_of_stand_in().items()}
    names = (*tiny.SPECIAL, "notimestamps")
    tokens = [stand_ins[byte] for byte in range(256)] + [f"<|{name}|>" for name in names]
    return WhisperTokenizer(dict(enumerate(tokens)))


LETTERS = _letters()


def tried(text, *terms, sure=(), language="en", strength=STRENGTH):
    """What is tried in a text: (the text, the term). ``sure``: words that the model is sure of."""
    tokens = list(text.encode())
    logprobs = [UNSURE] * (len(tokens) + 1)
    for word in sure:
        at = text.encode().index(word.encode())
        logprobs[at : at + len(word.encode())] = [-1e-9] * len(word.encode())
    found = terms_of(terms, LETTERS, strength)
    return [
        (bytes(tokens[one.begin : one.end]).decode(), bytes(one.tokens).decode())
        for one in found.trials(tokens, logprobs, language)
    ]


def test_what_sounds_like_a_term_is_tried_from_the_end_on():
    found = tried(" flambow, so to say flambo", "Flambeau", "Kubernetes")
    assert found[0] == ("flambo", "Flambeau")
    assert ("flambow", "Flambeau") in found[1:]


def test_several_words_may_be_one_and_one_may_be_several():
    assert ("sun beams", "sunbeams") in tried(" the sun beams", "sunbeams")
    assert ("drip caffy", "drip coffee") in tried(" a drip caffy", "drip coffee")
    assert tried(" see the sunbeams", "sunbeams") == []


def test_a_term_keeps_the_space_the_capital_and_the_marks_around_it():
    (trial,) = terms_of(("mocha",), LETTERS).trials(b' "Matcha", he said', [UNSURE] * 20, "en")
    assert (trial.begin, trial.end, bytes(trial.tokens)) == (2, 8, b"Mocha")
    assert bytes(trial.followed_by(b' "Matcha", he said').after) == b'",'


def test_a_word_beside_a_term_is_not_dropped():
    assert tried(" with the mocha", "mocha") == []
    assert ("apple pye", "apple pie") in tried(" an apple pye", "apple", "apple pie")


def test_where_the_model_left_no_room_nothing_is_tried():
    assert tried(" flambow", "flambeau", sure=["flambow"]) == []
    assert tried(" flambow", "flambeau", sure=["flamb"]) == [("flambow", "flambeau")]


def test_a_term_that_is_there_already_is_written_as_it_was_given():
    terms = terms_of(("iPhone", "New York", "mocha", "ẞ"), LETTERS)
    said = ['"Iphone,"', "new", "york!", "New", "Mocha", "Yorker", "ß"]
    assert terms_of((), LETTERS, STRENGTH, ("Will",)).cased(["will"]) == ["will"]
    assert terms.cased(said) == ['"iPhone,"', "New", "York!", "New", "Mocha", "Yorker", "ẞ"]


@given(st.lists(st.text(max_size=6)), st.lists(st.text(max_size=6), min_size=1))
def test_casing_changes_nothing_but_case(texts, terms):
    found = terms_of(tuple(terms), LETTERS)
    cased = found.cased(texts) if found else texts
    assert [text.casefold() for text in cased] == [text.casefold() for text in texts]


def test_a_name_that_was_only_mentioned_is_a_weaker_term():
    text, logprobs = list(b" flambow"), [UNSURE] * 9
    costs = [
        terms_of(terms, LETTERS, STRENGTH, names).trials(text, logprobs, "en")[0].cost
        for terms, names in ((("Flambeau",), ("Flambeau",)), ((), ("Flambeau",)))
    ]
    assert costs[1] == costs[0] / 2


def test_a_usual_word_gives_way_to_what_is_very_much_like_it_and_in_doubt():
    """One token is a usual word, with marks or without."""
    terms = terms_of(("bb", "bba"), LETTERS)
    texts = (b"b", b" b.", b"ba")
    usual, marked, other = (terms.trials(list(one), [UNSURE] * 4, "en")[0] for one in texts)
    assert usual.cost == marked.cost == pytest.approx(STRENGTH * USUAL_WORD * (3 / 4) ** 2)
    assert other.cost == pytest.approx(STRENGTH * 5 / 6)
    for text, tried_when_sure in ((b"b.", False), (b"ba", True)):
        trials = terms.trials(list(text), [log(0.9)] * 3, "en")
        assert bool(trials) == tried_when_sure


def test_a_language_without_spaces_and_marks_on_letters():
    assert ("東景都", "東京都") in tried("私は東景都にいる", "東京都", language="ja")
    assert tried(" cançao", "canção") == [("cançao", "canção")]


@given(st.text(max_size=60), st.lists(st.text(max_size=20), max_size=8))
def test_any_text_and_any_terms_may_be_compared(text, terms):
    found = terms_of(tuple(terms), LETTERS)
    tokens = list(text.encode())
    trials = found.trials(tokens, [UNSURE] * (len(tokens) + 1), "en") if found else []
    assert all(0 <= one.begin < one.end <= len(tokens) and one.tokens for one in trials)
    assert all(one.begin >= other.begin for one, other in pairwise(trials))


def test_a_term_of_too_many_tokens_is_not_cut_but_left_out():
    assert tried(" " + "a" * LONGEST, "a" * (LONGEST - 1) + "b") != []
    assert tried(" a" + "a" * LONGEST, "a" * LONGEST + "b") == []


def test_what_a_list_may_cost_is_bounded():
    """By the words of the text, however many a term has, and by how much is remembered."""
    found = terms_of((" ".join("abcdefghijklmnopqrstuvwxy"),), LETTERS)
    for number in range(300):
        text = f" so{number} many words that come and go {number}".encode()
        found.trials(list(text), [UNSURE] * (len(text) + 1), "en")
        assert len(found._known) <= KNOWN
    fresh = terms_of((" ".join("bcdefghijklmnopqrstuvwxyz"),), LETTERS)
    fresh.trials(list(b" aa" * 100), [UNSURE] * 301, "en")
    assert max(map(len, fresh._known)) == 2 * WIDEST


def test_a_gain_counts_what_follows_too():
    trial = Trial(1, 2, (7, 8), 9.0, 99).followed_by((5, 6))
    assert trial.after == (99,)
    assert gain(trial, [-1.0, -0.5, -0.25], [-9.0, -3.0, -0.5]) == pytest.approx(1.75)
    assert list(chain(trial.asked)) == [7, 8, 99]
