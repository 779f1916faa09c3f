"""Everything that a GPU does for Whisper, on a device that refuses what a GPU refuses."""

import numpy as np
import pytest
import torch

from ssasr.engine.graphs import CapturedGraph
from ssasr.engine.recognizer import SegmentStart, Work
from ssasr.engine.smart_turn import SmartTurn
from ssasr.engine.vad import SileroVad
from ssasr.engine.whisper.graph_passes import GraphPasses
from ssasr.protocol.recognition import StreamOptions
from tests.engine.pretend_device import Pretending, pretend_device
from tests.engine.recorder import LateRecorder
from tests.engine.whisper import tiny

pytestmark = pytest.mark.slow


class AtOnce(LateRecorder):
    """Does what is asked for when it is asked for: where operations cannot be noted."""

    def capture(self, function):
        result = function()

        def replay():
            again = function()
            if result is not None:
                result.copy_(again)

        return CapturedGraph(result, replay, function)


@pytest.fixture
def device():
    with Pretending():
        yield pretend_device()


def passes(network):
    return GraphPasses(network, AtOnce(), (1, 4), (100, 300), (1, 16, 48))


def words_of(recognizer, streams):
    """Final words of streams that go side by side."""
    recognizer.warm_up()
    states = [recognizer.new_state(StreamOptions(), SegmentStart(0)) for _ in streams]
    longest = max(map(len, streams))
    for begin in range(0, longest, recognizer.chunk):
        rows = [
            (s, x[begin : begin + recognizer.chunk]) for s, x in zip(states, streams, strict=True)
        ]
        recognizer.step([Work(state, part) for state, part in rows if len(part)])
    unfinished = {number: len(samples) for number, samples in enumerate(streams)}
    words = [()] * len(streams)
    while unfinished:
        none = np.zeros(0, np.float32)
        work = [Work(states[number], none, end) for number, end in unfinished.items()]
        outcomes = recognizer.step(work)
        for number, outcome in zip(list(unfinished), outcomes, strict=True):
            if not outcome.unfinished:
                words[number] = outcome.results[-1].words
                del unfinished[number]
    return [[(word.text, word.start, word.end) for word in row] for row in words]


def test_a_recogniser_with_nothing_on_the_wrong_side(device):
    streams = [tiny.speech(seconds, seed) for seconds, seed in [(1.5, 2), (2.0, 3)]]
    plain = words_of(tiny.recognizer(multilingual=True), streams)
    there = words_of(tiny.recognizer(multilingual=True, device=device, run=passes), streams)
    assert there == plain
    assert all(plain), "words in each stream"


def test_the_real_detector_there(device):
    """From the start on; random weights, so nothing is said of what it finds."""
    torch.manual_seed(0)
    vad = SileroVad().requires_grad_(False).to(device)
    recognizer = tiny.recognizer(device=device, run=passes, vad=vad)
    recognizer.warm_up()
    samples = tiny.speech(1.0, 2)[: recognizer.chunk]
    (outcome,) = recognizer.step(
        [Work(recognizer.new_state(StreamOptions(), SegmentStart(0)), samples)]
    )
    assert len(outcome.results[-1].speech) == len(samples) // 512


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_there(dtype, device):
    recognizer = tiny.recognizer(device=device, dtype=dtype, run=passes)
    assert all(words_of(recognizer, [tiny.speech(2.0, 3)]))


def test_what_listens_and_judges(device):
    torch.manual_seed(0)
    vad, turn = SileroVad().requires_grad_(False), SmartTurn().eval().requires_grad_(False)
    frames = torch.randn(2, 3, 512)
    sounds = [tiny.speech(seconds, 5) for seconds in (1.0, 9.0)]
    here = vad.detect(frames, vad.initial_state(2))[0], turn.probability(sounds)
    vad, turn = vad.to(device), turn.to(device)
    probability, state = vad.detect(frames.to(device), vad.initial_state(2, device))
    again, _ = vad.detect(frames.to(device), state)
    there = probability.cpu(), turn.probability(sounds).cpu()
    for one, other in zip(here, there, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert again.shape == (2, 3)
