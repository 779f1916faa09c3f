"""The whole path with a model that transcribes: words, times, finality, ends of turns, in 8 bits.

``tests/data/learnt`` has learnt Kennedy's sentence by heart; random weights say nothing that could
be right or wrong."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import trio

from ssasr.engine.kernels import int8_limit
from tests.engine.fastconformer.test_recognizer import Stream, together
from tests.harness.clients import converse
from tests.harness.processes import running

ROOT = Path(__file__).parents[3]
DIRECTORY = ROOT / "tests" / "data" / "learnt"
TEXT = (
    "And so, my fellow Americans, ask not what your country can do for you, "
    "ask what you can do for your country."
)
PHRASES = (
    ("And so, my fellow Americans,", 0.3, 2.2),
    ("ask not", 3.3, 4.3),
    ("what your country can do for you,", 5.4, 7.6),
    ("ask what you can do for your country.", 8.2, 10.5),
)
"""Between his pauses, and when they begin and end, in seconds."""
LATE = 0.6
"""Seconds by which a transducer may say a word after it has been said: nothing makes it say when.
(This one likes to say the words of a phrase together.)"""

needs_int8 = pytest.mark.skipif(not int8_limit(), reason="the processor has no 8-bit products")


@pytest.fixture(scope="module")
def audio():
    """The sentence, and half a second of silence."""
    samples, _ = soundfile.read(ROOT / "ssasr" / "data" / "en_jfk.flac", dtype="float32")
    return np.concatenate([samples, np.zeros(8_000, np.float32)])


@pytest.fixture(params=[1, 2, 7, 14], scope="module")
def stream(request, make_recognizer, audio):
    """In float32, with chunks of so many frames."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found = Stream(make_recognizer(DIRECTORY, request.param), audio).run()
    torch.set_num_threads(before)
    return found


def test_the_words_and_when_they_were_said(stream):
    assert " ".join(word.text for word in stream.words) == TEXT
    words = iter(stream.words)
    for phrase, begin, end in PHRASES:
        for word in islice(words, len(phrase.split())):
            assert begin <= word.start / 16_000 <= end + LATE


def test_words_become_final_one_by_one_and_stay(stream):
    final = ()
    for result in stream.results:
        now = tuple(word for word in result.words if word.final)
        assert now[: len(final)] == final
        final = now
    assert final == stream.words
    halfway = stream.results[len(stream.results) // 2].words
    assert sum(word.final for word in halfway) >= 5


def test_the_sentence_s_end_is_told_from_a_pause_in_it(stream):
    ends = {result.position / 16_000: result.end_of_turn_confidence for result in stream.results}
    assert max(sure for at, sure in ends.items() if at < 9.9) < 0.5
    assert stream.results[-1].end_of_turn_confidence > 0.8


@needs_int8
def test_the_same_tokens_in_8_bits_alone_and_in_company(make_recognizer, audio):
    expected = Stream(make_recognizer(DIRECTORY, 2), audio).run().tokens
    recognizer = make_recognizer(DIRECTORY, 2, int8=True)
    streams = [Stream(recognizer, np.roll(audio, -1_600 * n)) for n in range(3)]
    together(recognizer, streams)
    tokens = [token for token, _ in expected]
    assert [token for token, _ in streams[0].tokens] == tokens
    places = np.array(streams[0].tokens)[:, 1] - np.array(expected)[:, 1]
    assert np.abs(places).max() <= 1


@pytest.mark.slow
@pytest.mark.weights  # of the speech detector
@needs_int8
def test_turns_through_engine_and_gateway(audio):
    engine = ("engine", "--model", str(DIRECTORY), "--device", "cpu", "--precision", "int8")
    engine += ("--max-streams", "2", "--threads", "1", "--speakers", "false")
    samples = (np.concatenate([audio, np.zeros(24_000)]) * 32_767).astype(np.int16)
    with (
        running(*engine) as (_, port),
        running("gateway", "--asr-endpoint", f"ws://127.0.0.1:{port}") as (_, public),
    ):
        url = f"ws://127.0.0.1:{public}/v3/ws"
        # He pauses for more than a second, where the model is half sure.
        asked = {"max_turn_silence": 3_000, "end_of_turn_confidence_threshold": 0.7}
        asked |= {"sample_rate": 16_000, "format_turns": "true"}
        said = trio.run(lambda: converse(url, samples, **asked))
    assert said.close_code == 1000
    finals = [turn for turn in said.turns if turn["end_of_turn"]]
    assert {turn["transcript"] for turn in finals} >= {TEXT}, finals
    words = finals[-1]["words"]
    assert all(word["word_is_final"] for word in words)
    starts = [word["start"] for word in words]
    assert starts == sorted(starts)
    assert finals[-1]["end_of_turn_confidence"] > 0.8
