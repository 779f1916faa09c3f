"""Log-mel features straight from each slot's audio, any stretch of it at a time.

A mel frame ``t`` is centred on sample ``160 t`` and reaches 200 samples to either side, so a frame
can be computed from the samples around it and nothing else: there is no state, and cutting the
audio differently cannot change a value. The 400-sample window sits in the middle of a 512-point
transform; where it sits changes phases only, but also the last bits, which the logarithm of a
quiet bin shows.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from ssasr.engine.fastconformer.config import HOP

WINDOW = 400
REACH = WINDOW // 2
_TRANSFORM = 512
_MARGIN = (_TRANSFORM - WINDOW) // 2
_PREEMPHASIS = 0.97
_FLOOR = 2.0**-24
"""Added to the energies before the logarithm, as in training."""
_SAMPLE_RATE = 16_000


class LogMel(nn.Module):
    """Samples (batch, 160 (frames - 1) + 401) to log-mel (batch, frames, bins), in float32.

    The first sample of a row is the one before the first window: the pre-emphasis needs it.
    Samples before the start and after the end of the audio are given as zeros, with ``present``
    (same shape, bool) saying which ones exist, because pre-emphasis would turn the first zero after
    the end into a sample."""

    window: Tensor
    filters: Tensor

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW, periodic=False), persistent=False)
        self.register_buffer("filters", mel_filters(bins), persistent=False)

    def forward(self, samples: Tensor, present: Tensor) -> Tensor:
        emphasised = samples[:, 1:] - _PREEMPHASIS * samples[:, :-1]
        emphasised = torch.where(present[:, 1:], emphasised, 0.0)
        frames = emphasised.unfold(1, WINDOW, HOP) * self.window
        spectrum = torch.fft.rfft(fn.pad(frames, (_MARGIN, _MARGIN)))
        energy = spectrum.real.square() + spectrum.imag.square()
        return torch.log(energy @ self.filters + _FLOOR)


def mel_filters(bins: int) -> Tensor:
    """Triangular filters (257, bins) on Slaney's mel scale (linear below 1 kHz, logarithmic above),
    each of unit area: M. Slaney, Auditory Toolbox, 1998."""
    top = _hertz_to_mel(_SAMPLE_RATE / 2)
    edges = _mel_to_hertz(torch.linspace(0.0, top, bins + 2, dtype=torch.float64))
    frequencies = torch.linspace(0.0, _SAMPLE_RATE / 2, _TRANSFORM // 2 + 1, dtype=torch.float64)
    rising = (frequencies[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies[:, None]) / (edges[2:] - edges[1:-1])
    triangles = torch.minimum(rising, falling).clamp(min=0.0)
    return (triangles * (2.0 / (edges[2:] - edges[:-2]))).float()


_KNEE_HERTZ = 1000.0
_HERTZ_PER_MEL = 200.0 / 3.0
_KNEE_MEL = _KNEE_HERTZ / _HERTZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27.0


def _hertz_to_mel(hertz: float) -> float:
    return _KNEE_MEL + math.log(hertz / _KNEE_HERTZ) / _LOG_STEP


def _mel_to_hertz(mel: Tensor) -> Tensor:
    above = _KNEE_HERTZ * torch.exp(_LOG_STEP * (mel - _KNEE_MEL))
    return torch.where(mel < _KNEE_MEL, _HERTZ_PER_MEL * mel, above)
