"""Key terms with real weights."""

import pytest
import soundfile
import torch

from ssasr.engine.recognizer import RecognizerSettings
from ssasr.engine.whisper.biasing import terms_of
from ssasr.engine.whisper.decoding import Request
from ssasr.engine.whisper.recognizer import create
from tests.conftest import JFK

pytestmark = pytest.mark.weights
ABSENT = ("Kubernetes", "Flambeau", "amoxicillin", "drip coffee")
SURE = ("Amerikens", "kountry")
"""They sound like words of the recording that the model is sure of."""


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
