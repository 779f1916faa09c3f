"""The client's ``vad_threshold`` decides what the recogniser hears at all."""

import numpy as np
import pytest
import soundfile

from ssasr.engine.recognizer import RecognizerSettings, SegmentStart, Work
from ssasr.engine.whisper.recognizer import create
from ssasr.protocol.recognition import StreamOptions
from tests.conftest import JFK

pytestmark = pytest.mark.weights


def words(recognizer, samples, threshold):
    state = recognizer.new_state(StreamOptions(vad_threshold=threshold), SegmentStart(0))
    work = Work(state, samples, len(samples))
    while True:
        (outcome,) = recognizer.step([work])
        if not outcome.unfinished:
            return len(outcome.results[-1].words)
        work = Work(state, samples[:0], len(samples))


def test_speech_that_the_threshold_excludes_is_not_decoded():
    recognizer = create(RecognizerSettings("english", "cpu", 1, 1, None))
    samples = soundfile.read(JFK, dtype="float32")[0][: 3 * 16_000]
    samples = (np.round(samples * 0.003 * 32_768) / 32_768).astype(np.float32)
    low, high = (words(recognizer, samples, threshold) for threshold in (0.05, 0.999))
    assert high == 0 < low
