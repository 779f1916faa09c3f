"""Small random models and recognisers, made once."""

import pytest
import torch

from ssasr.engine.fastconformer.checkpoint import load_model, load_processing
from ssasr.engine.fastconformer.cpu import CpuProgram
from ssasr.engine.fastconformer.detokenizer import PieceTable
from ssasr.engine.fastconformer.quantized import quantize
from ssasr.engine.fastconformer.recognizer import FastConformerRecognizer
from ssasr.engine.fastconformer.side_by_side import Arrangement, SideBySideRunner
from ssasr.engine.fastconformer.slots import Layout, Slots
from tests.engine.fastconformer import reference


def loudness(frames, context, state):
    """A speech detector with the interface and the memory of the real one: the running maximum of
    the frame's level and the step from the sample before it."""
    (hidden, cell), before, speech, states = state.unbind(1), context[:, -1], [], []
    for frame in frames.unbind(1):
        level = frame.abs().mean(dim=1)
        hidden = torch.maximum(hidden * 0.9, level[:, None].expand_as(hidden))
        cell = cell + 1.0
        step, before = (frame[:, 0] - before).abs(), frame[:, -1]
        speech.append((hidden[:, 0] + step / (1.0 + cell[:, 0])).clamp(max=1.0))
        states.append(torch.stack([hidden, cell], dim=1))
    return torch.stack(speech, dim=1), torch.stack(states, dim=1)


@pytest.fixture(autouse=True)
def _one_thread():
    """Small products on several threads spend their time waiting for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def english(tmp_path_factory):
    """Reference model, and the directory it is saved in."""
    model = reference.small_model()
    return model, reference.save(model, tmp_path_factory.mktemp("english"))


@pytest.fixture(scope="session")
def multilingual(tmp_path_factory):
    """Likewise, with language prompts."""
    model = reference.small_model(multilingual=True, seed=1, num_mel_bins=128)
    return model, reference.save(model, tmp_path_factory.mktemp("multilingual"))


ALONE = Arrangement(1, 1)


@pytest.fixture(scope="session")
def make_recognizer():
    """Builds a recogniser from a checkpoint directory."""

    def make(
        directory, chunk_frames, slots=6, rewind=3, largest=64, int8=False, kind=CpuProgram,
        arrangement=ALONE,
    ):  # fmt: skip
        model = load_model(directory, torch.device("cpu"), torch.float32)
        if int8:
            quantize(model)
        layout = Layout(model.config, slots, chunk_frames, rewind)
        with torch.no_grad():
            program = kind(
                model, Slots.allocate(layout, torch.device("cpu"), torch.float32), loudness
            )
        return FastConformerRecognizer(
            "test",
            SideBySideRunner(program, largest, arrangement),
            layout,
            PieceTable.load(directory, model.config),
            load_processing(directory, model.config),
            slots,
        )

    return make
