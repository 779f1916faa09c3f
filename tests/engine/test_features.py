"""Log-mel against the definition written out with numpy, and rows that leave each other alone."""

import numpy as np
import pytest
import torch

from ssasr.engine.features import HOP, WINDOW, LogMel, mel_filters


def _by_definition(samples, bins):
    padded = np.pad(samples.astype(np.float64), WINDOW // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    frames = [
        np.abs(np.fft.rfft(window * padded[at : at + WINDOW])) ** 2
        for at in range(0, len(samples), HOP)
    ]
    log = np.log10(np.maximum(mel_filters(bins).astype(np.float64) @ np.array(frames).T, 1e-10))
    return (np.maximum(log, log.max() - 8.0) + 4.0) / 4.0


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("length", [3_200, 16_000])
def test_equals_the_definition(bins, length):
    samples = np.random.default_rng(length).standard_normal(length).astype(np.float32) * 0.1
    mel = LogMel(bins)(torch.from_numpy(samples)[None])
    assert mel.shape == (1, bins, length // HOP)
    assert np.abs(mel[0].numpy() - _by_definition(samples, bins)).max() < 1e-4


def test_filters_have_unit_area_and_cover_the_band():
    for bins in (80, 128):
        filters = mel_filters(bins)
        assert filters.shape == (bins, WINDOW // 2 + 1)
        hertz = 16_000 / WINDOW
        # Wide filters are sampled well enough for the sum to be near the integral.
        assert np.allclose(filters[-10:].sum(1) * hertz, 1.0, atol=0.03)
        assert (filters >= 0).all()
        assert (filters.max(1) > 0).all()


def test_a_loud_row_does_not_change_a_quiet_one():
    generator = torch.Generator().manual_seed(1)
    quiet = torch.randn(1, 8_000, generator=generator) * 0.001
    loud = torch.randn(1, 8_000, generator=generator)
    mel = LogMel()
    assert torch.equal(mel(torch.cat([quiet, loud]))[:1], mel(quiet))


def test_silence_is_finite():
    assert torch.isfinite(LogMel()(torch.zeros(1, 3_200))).all()
