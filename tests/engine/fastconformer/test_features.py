"""Log-mel features: equal to the reference's, and blind to what lies outside the audio."""

import numpy as np
import pytest
import torch

from ssasr.engine.fastconformer.features import LogMel
from ssasr.engine.features import mel_filters
from tests.engine.fastconformer import reference


def log_mel(audio, bins, junk=0.0):
    """All mel frames of an utterance; ``junk`` stands where there is no audio."""
    frames = len(audio) // 160
    samples = torch.full((1, 160 * (frames - 1) + 401), junk)
    present = torch.zeros(samples.shape, dtype=torch.bool)
    known = torch.from_numpy(audio)[: samples.shape[1] - 201]
    samples[0, 201 : 201 + len(known)] = known
    present[0, 201 : 201 + len(known)] = True
    return LogMel(bins)(torch.where(present, samples, 0.0), present)[0]


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("samples", [400, 16_000, 33_333])
def test_equals_the_reference(bins, samples):
    audio = reference.utterance(bins, samples)
    model = type("Model", (), {})()
    model.config = type("Config", (), {})()
    model.config.encoder_config = type("Encoder", (), {"num_mel_bins": bins})()
    expected, mask = reference.features(model, [audio])
    found = log_mel(audio, bins)
    assert found.shape[0] == int(mask.sum())
    torch.testing.assert_close(found, expected[0, : found.shape[0]], rtol=0, atol=1e-4)


def test_frames_depend_on_200_samples_to_either_side_only():
    audio = reference.utterance(0, 8_000)
    other = audio.copy()
    other[4_000 + 200 :] = 0.5  # frame 25 is centred on sample 4000
    other[: 4_000 - 201] = -0.5
    assert torch.equal(log_mel(audio, 80)[25], log_mel(other, 80)[25])
    assert not torch.equal(log_mel(audio, 80)[27], log_mel(other, 80)[27])


def test_filters_have_unit_area():
    width = 16_000 / 512
    # Narrow filters hold one or two bins of the transform only; the wide ones show the area.
    assert np.allclose(mel_filters(80, 512)[60:].sum(1) * width, 1.0, atol=0.02)
