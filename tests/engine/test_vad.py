"""Silero VAD: batches, splits and states with random weights; the real weights against the
package's own model on real speech."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
import torch

from ssasr.engine.vad import SileroVad, stack, unstack
from ssasr.errors import WeightsError
from ssasr.models import catalogue
from ssasr.protocol.recognition import VAD_FRAME

SPEECH = Path(__file__).parent.parent / "data" / "speech.flac"


@pytest.fixture(scope="module")
def random_vad():
    torch.manual_seed(7)
    return SileroVad().eval().requires_grad_(False)


def _audio(streams, frames, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(streams, frames, VAD_FRAME, generator=generator) - 0.5


def test_consecutive_frames_at_once_equal_frame_by_frame(random_vad):
    audio = _audio(3, 11)
    at_once, after = random_vad.detect(audio, random_vad.initial_state(3))
    state = random_vad.initial_state(3)
    for k in range(11):
        probability, state = random_vad(audio[:, k], state)
        assert torch.allclose(probability, at_once[:, k], atol=1e-6)
    for name in ("h", "c", "context"):
        assert torch.allclose(getattr(state, name), getattr(after, name), atol=1e-6)


def test_a_stream_gets_the_same_alone_as_in_any_batch(random_vad):
    audio = _audio(5, 4)
    together, after = random_vad.detect(audio, random_vad.initial_state(5))
    for row, state in enumerate(unstack(after)):
        alone, own = random_vad.detect(audio[row : row + 1], random_vad.initial_state(1))
        assert torch.allclose(alone[0], together[row], atol=1e-6)
        assert torch.allclose(own.h, state.h, atol=1e-6)


def test_the_state_matters(random_vad):
    audio = _audio(1, 2)
    _, after = random_vad(audio[:, 0], random_vad.initial_state(1))
    fresh, _ = random_vad(audio[:, 1], random_vad.initial_state(1))
    later, _ = random_vad(audio[:, 1], after)
    assert not torch.allclose(fresh, later, atol=1e-6)


def test_stack_and_unstack_are_inverses(random_vad):
    _, state = random_vad.detect(_audio(4, 2), random_vad.initial_state(4))
    again = stack(unstack(state))
    for name in ("h", "c", "context"):
        assert torch.equal(getattr(again, name), getattr(state, name))
    assert len(state) == 4
    taken = state.take([2, 0])
    assert torch.equal(taken.c, state.c[[2, 0]])


def test_a_state_is_not_changed_by_listening(random_vad):
    state = random_vad.initial_state(2)
    copies = [state.h.clone(), state.c.clone(), state.context.clone()]
    audio = _audio(2, 3)
    _, after = random_vad.detect(audio, state)
    assert all(
        torch.equal(a, b) for a, b in zip(copies, (state.h, state.c, state.context), strict=True)
    )
    audio.zero_()  # the caller's buffer may be used again
    assert after.context.abs().sum() > 0


def test_a_file_that_is_not_the_model(tmp_path):
    path = tmp_path / "vad.onnx"
    path.write_bytes(b"\x3a\x02\x0a\x00")  # an empty graph
    with pytest.raises(WeightsError, match="does not have"):
        SileroVad.load(path)


@pytest.mark.slow
@pytest.mark.weights
def test_equals_onnxruntime_on_real_speech():
    """The reference runs the file itself; ours only takes the tensors out of it."""
    path = catalogue.resolve("silero-vad", pull=False).weights
    samples, rate = soundfile.read(SPEECH, dtype="float32")
    assert rate == 16_000
    audio = np.concatenate([np.zeros(VAD_FRAME * 20, np.float32), samples])  # silence, then speech
    frames = audio[: len(audio) // VAD_FRAME * VAD_FRAME].reshape(-1, VAD_FRAME)

    session = onnxruntime.InferenceSession(path)
    state, context, wanted = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32), []
    for frame in frames:
        joined = np.concatenate([context, frame])[None]
        inputs = {"input": joined, "state": state, "sr": np.array(rate)}
        probability, state = session.run(None, inputs)
        wanted.append(probability.item())
        context = frame[-64:]

    vad = SileroVad.load(path)
    got, _ = vad.detect(torch.from_numpy(frames)[None], vad.initial_state(1))
    assert max(wanted) > 0.9
    assert min(wanted) < 0.1
    assert np.abs(got[0].numpy() - wanted).max() < 1e-5
