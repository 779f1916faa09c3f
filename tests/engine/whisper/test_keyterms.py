"""Key terms with real weights."""

import random
from pathlib import Path

import pytest
import soundfile
import torch

from ssasr.engine.recognizer import RecognizerSettings, SegmentStart, Work
from ssasr.engine.whisper.biasing import terms_of
from ssasr.engine.whisper.decoding import Request
from ssasr.engine.whisper.recognizer import create
from ssasr.protocol.recognition import StreamOptions
from tests.conftest import JFK

pytestmark = pytest.mark.weights
ABSENT = ("Kubernetes", "Flambeau", "amoxicillin", "drip coffee")
SURE = ("Amerikens", "kountry")
"""They sound like words of the recording that the model is sure of."""
SPEECH = Path(__file__).parents[2] / "data" / "speech.flac"
CONSONANTS = "bcdfghjklmnpqrstvwxz"
IMPOSSIBLE = tuple("".join(random.Random(n).choices(CONSONANTS, k=12)) for n in range(100))


@pytest.fixture(scope="module")
def recognizer():
    return create(RecognizerSettings("english", "cpu", 1, 1, precision="float32"))


def decoded(recognizer, seconds, terms=()):
    """(the text, what greedy decoding wrote) of so much of the recording."""
    samples = soundfile.read(JFK, dtype="float32")[0][: int(seconds * 16_000)]
    tokenizer = recognizer.vocabulary.tokenizer
    with torch.inference_mode():
        (found,) = recognizer.decoding([Request(samples, "en", terms=terms_of(terms, tokenizer))])
    greedy = found.draft(0, len(found.tokens))
    return tokenizer.decode(found.tokens).strip(), tokenizer.decode(greedy).strip()


def test_a_list_changes_no_word_that_the_model_is_sure_of(recognizer):
    plain, _ = decoded(recognizer, 11)
    assert "your country" in plain
    assert decoded(recognizer, 11, (*ABSENT, *SURE)) == (plain, plain)


def test_a_term_is_written_for_what_sounds_like_it_and_nothing_else_changes(recognizer):
    said, _ = decoded(recognizer, 2.5)
    assert "so my fellow" in said
    found = decoded(recognizer, 2.5, (*ABSENT, "so mai fellow"))
    assert found == (said.replace("my", "mai"), said)


def spoken(recognizer, path, terms=(), *, offline=False):
    """Words with times and confidences, as of a session or of a file."""
    samples = soundfile.read(path, dtype="float32")[0]
    options = StreamOptions(languages=("en",), keyterms=terms, offline=offline)
    state = recognizer.new_state(options, SegmentStart(0))
    chunk = len(samples) if offline else recognizer.chunk
    for at in range(0, len(samples), chunk):
        final_at = len(samples) if at + chunk >= len(samples) else None
        outcome = recognizer.step([Work(state, samples[at : at + chunk], final_at)])[0]
        while outcome.unfinished:
            outcome = recognizer.step([Work(state, samples[:0], final_at)])[0]
    return outcome.results[-1].words


@pytest.mark.parametrize(("path", "offline"), [(JFK, True), (SPEECH, True), (SPEECH, False)])
def test_terms_that_cannot_occur_change_nothing(recognizer, path, offline):
    plain = spoken(recognizer, path, offline=offline)
    assert plain
    assert spoken(recognizer, path, IMPOSSIBLE, offline=offline) == plain


def test_a_strength_of_0_is_no_list(recognizer):
    path, terms = JFK, ("fellow Amerikans",)
    plain = spoken(recognizer, path, offline=True)
    recognizer.strength, usual = 100.0, recognizer.strength
    changed = spoken(recognizer, path, terms, offline=True)
    recognizer.strength = 0.0
    without = spoken(recognizer, path, terms, offline=True)
    recognizer.strength = usual
    assert changed != plain == without
