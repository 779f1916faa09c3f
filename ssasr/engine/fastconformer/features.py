"""Log-mel features straight from each slot's audio, any stretch of it at a time.

A mel frame ``t`` is centred on sample ``160 t`` and reaches 200 samples to either side, so a frame
can be computed from the samples around it and nothing else: there is no state, and cutting the
audio differently cannot change a value. The 400-sample window sits in the middle of a 512-point
transform; where it sits changes phases only, but also the last bits, which the logarithm of a
quiet bin shows.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from ssasr.engine.fastconformer.config import HOP
from ssasr.engine.features import mel_filters

WINDOW = 400
REACH = WINDOW // 2
_TRANSFORM = 512
_MARGIN = (_TRANSFORM - WINDOW) // 2
_PREEMPHASIS = 0.97
_FLOOR = 2.0**-24
"""Added to the energies before the logarithm, as in training."""


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
        filters = torch.from_numpy(mel_filters(bins, _TRANSFORM)).T.contiguous()
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, samples: Tensor, present: Tensor) -> Tensor:
        emphasised = samples[:, 1:] - _PREEMPHASIS * samples[:, :-1]
        emphasised = torch.where(present[:, 1:], emphasised, 0.0)
        frames = emphasised.unfold(1, WINDOW, HOP) * self.window
        spectrum = torch.fft.rfft(fn.pad(frames, (_MARGIN, _MARGIN)))
        energy = spectrum.real.square() + spectrum.imag.square()
        return torch.log(energy @ self.filters + _FLOOR)
