"""The whole way on a device that is not there: fake tensors have a device, a dtype and a shape but
no numbers, and refuse what a device would refuse, two devices or two dtypes in one operation."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from ssasr.engine.fastconformer import checkpoint
from ssasr.engine.fastconformer.checkpoint import load_model, load_processing
from ssasr.engine.fastconformer.detokenizer import PieceTable
from ssasr.engine.fastconformer.graphs import GraphRunner
from ssasr.engine.fastconformer.program import Program
from ssasr.engine.fastconformer.recognizer import (
    FastConformerRecognizer,
    SileroDetector,
    make_layout,
)
from ssasr.engine.fastconformer.slots import Slots
from ssasr.engine.graphs import CapturedGraph
from ssasr.engine.recognizer import SegmentStart, Work
from ssasr.engine.vad import SileroVad
from ssasr.protocol.recognition import StreamOptions
from tests.engine.recorder import CaptureRules

DEVICE = torch.device("lazy")
"""Stands for CUDA, on which torch slices fake tensors only where it was built for CUDA."""


class NoNumbers:
    """A ``GraphRecorder`` whose host memory is real, and stays as it is: no answer ever comes."""

    def __init__(self):
        self.replays = 0

    def pinned(self, *shape, dtype):
        with unset_fake_temporarily():
            return torch.zeros(shape, dtype=dtype)

    def working(self):
        return nullcontext()

    def capture(self, function):
        with torch.no_grad(), CaptureRules():
            result = function()
        return CapturedGraph(result, self._replay, function)

    def synchronize(self):
        pass

    def _replay(self):
        self.replays += 1


@pytest.fixture
def mode(monkeypatch):
    for name in ("_tensor", "_shapes"):
        read = unset_fake_temporarily()(getattr(checkpoint, name))
        monkeypatch.setattr(checkpoint, name, read)
    return FakeTensorMode(allow_non_fake_inputs=True)


def on_device(directory, dtype, chunk_frames, mode):
    """A recogniser whose weights and slots are there."""
    recorder = NoNumbers()
    with mode, torch.no_grad():
        model = load_model(directory, DEVICE, dtype)
        vad = SileroVad()
        weights = {name: tensor.to(DEVICE) for name, tensor in vad.state_dict().items()}
        vad.load_state_dict(weights, assign=True)
        layout = make_layout(model, 4, chunk_frames)
        program = Program(model, Slots.allocate(layout, DEVICE, dtype), SileroDetector(vad))
        runner = GraphRunner(program, 1, recorder)
    pieces = PieceTable.load(directory, model.config)
    processing = load_processing(directory, model.config)
    recognizer = FastConformerRecognizer("test", runner, layout, pieces, processing, 4)
    return recognizer, program, recorder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "dtype", "chunk_frames"),
    [("english", torch.bfloat16, 1), ("multilingual", torch.float16, 2)],
)
def test_one_device_and_one_dtype(architecture, dtype, chunk_frames, request, mode):
    _, directory = request.getfixturevalue(architecture)
    recognizer, program, recorder = on_device(directory, dtype, chunk_frames, mode)
    with mode:
        recognizer.warm_up()
    warm = recorder.replays
    assert warm == 1
    state = recognizer.new_state(StreamOptions(), SegmentStart(0))
    chunk = np.zeros(recognizer.chunk, np.float32)
    recognizer.step([Work(state, chunk)])
    recognizer.step([Work(state, chunk[:100], recognizer.chunk + 100)])
    assert recorder.replays >= warm + 2
    slots = program.slots
    rings = (*slots.attention, *slots.convolution, slots.text)
    weights = tuple(program.model.parameters())
    everything = (*weights, *rings, slots.audio, slots.vad, *program._log_mel.buffers())
    assert {tensor.device for tensor in everything} == {DEVICE}
    assert {tensor.dtype for tensor in (*weights, *rings)} == {dtype}
