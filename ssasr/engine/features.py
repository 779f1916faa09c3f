"""Whisper's log-mel spectrogram, batched, for audio of any length.

Definition (Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", section
2.2): 25 ms Hann windows every 10 ms, centred with reflected edges, power spectrum, Slaney mel
filters from 0 to 8 kHz, log10, clamped to eight below the maximum of the excerpt, then (x + 4) / 4.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SAMPLE_RATE = 16_000
WINDOW = 400
"""Samples in one analysis window, 25 ms."""
HOP = 160
"""Samples between two mel frames, 10 ms."""


def mel_filters(bins: int, transform: int = WINDOW) -> NDArray[np.float32]:
    """Triangular filters on Slaney's mel scale, each of unit area: (bins, transform // 2 + 1).
    ``transform``: samples that the spectrum is taken of.

    The scale is linear below 1 kHz (200/3 Hz a mel) and logarithmic above (27 steps for a factor
    of 6.4); Slaney, Auditory Toolbox, 1998. Computed at construction: it takes under a millisecond.
    """
    linear, knee, log_step = 200.0 / 3, 1000.0, np.log(6.4) / 27.0

    top = knee / linear + np.log(SAMPLE_RATE / 2 / knee) / log_step
    mels = np.linspace(0.0, top, bins + 2)
    hertz = np.where(
        mels < knee / linear,
        mels * linear,
        knee * np.exp(log_step * (mels - knee / linear)),
    )
    spectrum = np.linspace(0.0, SAMPLE_RATE / 2, transform // 2 + 1)
    width = np.diff(hertz)
    distance = hertz[:, None] - spectrum[None, :]
    rising = -distance[:-2] / width[:-1, None]
    falling = distance[2:] / width[1:, None]
    area = 2.0 / (hertz[2:] - hertz[:-2])
    return (np.maximum(0.0, np.minimum(rising, falling)) * area[:, None]).astype(np.float32)


class LogMel(nn.Module):
    """samples (batch, n) in [-1, 1], n a multiple of HOP -> log-mel (batch, bins, n / HOP)."""

    window: Tensor
    filters: Tensor

    def __init__(self, bins: int = 80) -> None:
        super().__init__()
        self.bins = bins
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.register_buffer("filters", torch.from_numpy(mel_filters(bins)), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Every row is normalised by its own maximum, so rows do not influence each other."""
        spectrum = torch.stft(
            samples, WINDOW, HOP, window=self.window, center=True, return_complex=True
        )
        power = torch.view_as_real(spectrum[..., :-1]).square().sum(-1)
        log = (self.filters @ power).clamp_(min=1e-10).log10_()
        floor = log.amax(dim=(-2, -1), keepdim=True) - 8.0
        return torch.maximum(log, floor).add_(4.0).div_(4.0)
