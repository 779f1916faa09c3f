"""Every recogniser there is against the contract."""

from functools import partial
from pathlib import Path

import pytest
import soundfile

from ssasr.engine.recognizer import RecognizerSettings
from ssasr.engine.scripted import ScriptedRecognizer
from tests.contracts.recognizer import check_recognizer
from tests.engine.whisper import tiny

SPEECH = Path(__file__).parent.parent / "data" / "speech.flac"


@pytest.fixture
def clips():
    return [tiny.speech(7.3, 1), tiny.speech(4.0, 2), tiny.speech(5.7, 3)]


def test_scripted(clips):
    check_recognizer(ScriptedRecognizer, clips)


@pytest.mark.slow
def test_whisper_with_random_weights(clips):
    check_recognizer(tiny.recognizer, clips)


@pytest.mark.slow
def test_multilingual_whisper_with_random_weights(clips):
    check_recognizer(partial(tiny.recognizer, multilingual=True), clips)


@pytest.mark.slow
@pytest.mark.weights
def test_whisper_with_the_default_weights():
    from ssasr.engine.whisper.recognizer import create

    recognizer = create(RecognizerSettings("tiny.en", device="cpu", threads=1))
    speech, rate = soundfile.read(SPEECH, dtype="float32")
    assert rate == 16_000
    check_recognizer(lambda: recognizer, [speech, speech[30_000:], speech[:50_000]])
