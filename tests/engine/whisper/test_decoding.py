"""A draft never changes the result, a batch never does, loops are cut."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssasr.engine.whisper.decoding import FAMILIAR, Request, repeated_tail
from ssasr.engine.whisper.passes import _PlainBatch
from tests.engine.whisper import tiny

pytestmark = pytest.mark.slow
LOUD = [tiny.speech(seconds, seed) for seconds, seed in [(0.5, 1), (1.0, 2), (0.3, 3), (0.8, 4)]]


def same(one, other):
    assert one.tokens == other.tokens
    assert (one.language, one.complete, one.skip) == (other.language, other.complete, other.skip)
    assert np.allclose(one.logprobs, other.logprobs, atol=1e-4)
    assert one.scores.shape == other.scores.shape
    assert np.allclose(one.scores, other.scores, atol=1e-3)


@pytest.fixture(scope="module")
def plain():
    return tiny.decoding(cut_loops=False)


@pytest.fixture(scope="module")
def multilingual():
    return tiny.decoding(cut_loops=False, multilingual=True)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_draft_gives_what_no_draft_gives(plain, data):
    samples = LOUD[data.draw(st.integers(0, 3))]
    scratch = plain([Request(samples, "en")])[0]
    assert len(set(scratch.tokens)) > 3, "a text worth drafting"
    draft = list(scratch.tokens)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(draft)))
        cut = data.draw(st.integers(0, 3))
        draft[at : at + cut] = data.draw(st.lists(st.integers(0, 70), max_size=3))
    same(plain([Request(samples, "en", tuple(draft))])[0], scratch)


def test_a_draft_that_lacks_a_token_is_tried_again_after_it(plain, monkeypatch):
    """One pass to the token, one that takes it for another, and one for all the rest."""
    samples, read, passes = LOUD[0], _PlainBatch.read, []
    monkeypatch.setattr(
        _PlainBatch, "read", lambda batch, rows: passes.append(rows) or read(batch, rows)
    )
    text = plain([Request(samples, "en")])[0].tokens
    assert len(set(text[4:12])) == 8, "tokens that are found once"
    passes.clear()
    same_text = plain([Request(samples, "en", text[:6] + text[7:])])[0].tokens
    assert (same_text, len(passes)) == (text, 3)


def test_a_draft_hides_no_loop():
    looping = tiny.decoding(seed=1)
    audio, draft, cut = tiny.speech(2, 10), (), 0
    for end in range(8_000, 32_001, 4_000):
        scratch = looping([Request(audio[:end], "en")])[0]
        same(looping([Request(audio[:end], "en", draft)])[0], scratch)
        draft, cut = scratch.tokens, cut + (not scratch.complete)
    assert cut, "there is one to be hidden"


def test_a_row_gets_the_same_in_any_batch(plain):
    requests = [Request(samples, "en") for samples in LOUD]
    alone = [plain([request])[0] for request in requests]
    for one, other in zip(plain(requests), alone, strict=True):
        same(one, other)
    for one, other in zip(plain(requests[::-1]), alone[::-1], strict=True):
        same(one, other)


def test_drafts_of_other_rows_do_not_matter(plain):
    alone = [plain([Request(samples, "en")])[0] for samples in LOUD]
    requests = [
        Request(samples, "en", alone[(number + 1) % 4].tokens)
        for number, samples in enumerate(LOUD)
    ]
    for one, other in zip(plain(requests), alone, strict=True):
        same(one, other)


def test_what_was_said_before_is_of_its_row_alone(plain):
    before = (3, 1, 4, 15, 9, 26, 5)
    alone = [plain([Request(samples, "en")])[0] for samples in LOUD]
    after = [plain([Request(samples, "en", prompt=before)])[0] for samples in LOUD]
    assert any(one.tokens != other.tokens for one, other in zip(alone, after, strict=True))
    mixed = [
        Request(samples, "en", prompt=before if number % 2 else ())
        for number, samples in enumerate(LOUD)
    ]
    for number, found in enumerate(plain(mixed)):
        same(found, (after if number % 2 else alone)[number])


def test_of_what_was_said_before_only_the_end_counts(plain):
    long = tuple(number % 60 for number in range(900))
    (found,) = plain([Request(LOUD[1], "en", prompt=long)])
    same(found, plain([Request(LOUD[1], "en", prompt=long[-plain.most_prompt :])])[0])


def test_a_language_is_found_among_those_that_may_be(multilingual):
    for language in ("en", "de"):
        (found,) = multilingual([Request(LOUD[0], None, among=(language,))])
        assert (found.language, found.language_confidence) == (language, pytest.approx(1.0))
    several = multilingual(
        [Request(LOUD[0], None, among=one) for one in ((), ("de",), ("de", "en"))]
    )
    assert several[0].language_confidence == pytest.approx(several[2].language_confidence)
    assert several[1].language == "de"


def test_people_mostly_go_on_in_the_language_that_they_spoke(multilingual):
    def odds(before):
        (found,) = multilingual([Request(LOUD[0], None, language_before=before)])
        share = found.language_confidence
        return share / (1 - share) if found.language == "de" else (1 - share) / share

    assert odds("de") == pytest.approx(FAMILIAR * odds(None), rel=1e-3)
    assert odds("en") == pytest.approx(odds(None) / FAMILIAR, rel=1e-3)
    assert odds("fr") == odds(None), "the model does not know it"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_decodes_excerpts_of_all_lengths(plain, dtype):
    requests = [Request(samples, "en") for samples in LOUD]
    found = tiny.decoding(cut_loops=False, dtype=dtype)(requests)
    for half, full in zip(found, plain(requests), strict=True):
        assert half.tokens[0] == full.tokens[0]
        assert half.logprobs[0] == pytest.approx(full.logprobs[0], abs=0.3)
        assert half.scores.dtype == np.float32


def test_length_is_bounded_by_the_audio(plain):
    for samples in LOUD:
        assert len(plain([Request(samples, "en")])[0].tokens) <= 12 * len(samples) / 16_000 + 12


@pytest.mark.parametrize(
    ("tokens", "copies"),
    [
        ([1, 2, 3], 0),
        ([7, 5, 5, 5, 5, 5], 0),
        ([7, 5, 5, 5, 5, 5, 5], 5),
        ([1, 2, 1, 2, 1, 2], 0),
        ([9, 1, 2, 1, 2, 1, 2, 1, 2], 6),
        ([1, 2, 3, 4, 5] * 3, 10),
        ([1, 2, 3, 4, 5] * 2, 0),
    ],
)
def test_repetitions_that_nobody_says(tokens, copies):
    assert repeated_tail(tokens) == copies
