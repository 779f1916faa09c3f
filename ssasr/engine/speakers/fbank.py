"""Log mel filterbank energies as Kaldi computes them (``compute-fbank-feats``), for CAM++.

Frames of 25 ms every 10 ms, only whole ones; each without its mean, pre-emphasised, under the Povey
window, as a power spectrum of 512 points; 80 triangles, linear on Kaldi's mel scale between 20 Hz
and 8 kHz; the natural logarithm, with a floor. No dither: the same audio gives the same numbers.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssasr.protocol.recognition import SAMPLE_RATE

MELS = 80
FRAME = SAMPLE_RATE * 25 // 1_000
HOP = SAMPLE_RATE * 10 // 1_000
_POINTS = 512
_EMPHASIS = 0.97
_LOWEST_HZ = 20.0
_FLOOR = 1.1920928955078125e-07  # the epsilon of float32, as Kaldi has it


class KaldiFbank(nn.Module):
    """Holds the window and the triangles; no weights."""

    def __init__(self) -> None:
        super().__init__()
        steps = torch.arange(FRAME, dtype=torch.float64)
        hann = 0.5 - 0.5 * torch.cos(2 * math.pi * steps / (FRAME - 1))
        self.register_buffer("window", hann.pow(0.85).float(), persistent=False)
        self.register_buffer("triangles", _triangles(), persistent=False)
        self.window: Tensor
        self.triangles: Tensor

    def forward(self, audio: Tensor) -> Tensor:
        """``audio`` (n, samples) in [-1, 1] -> (n, frames, 80), mean over the frames removed."""
        frames = audio.unfold(1, FRAME, HOP)
        frames = frames - frames.mean(dim=2, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
        frames = (frames - _EMPHASIS * before) * self.window
        spectrum = torch.fft.rfft(F.pad(frames, (0, _POINTS - FRAME)))
        power = spectrum.real.square() + spectrum.imag.square()
        energies = (power[..., : _POINTS // 2] @ self.triangles).clamp_min(_FLOOR).log()
        centred: Tensor = energies - energies.mean(dim=1, keepdim=True)
        return centred


def _mel(hertz: Tensor) -> Tensor:
    return 1_127.0 * torch.log1p(hertz / 700.0)


def _triangles() -> Tensor:
    """(bins, mels); the bin of the highest frequency counts for nothing, as in Kaldi."""
    bins = _mel(torch.arange(_POINTS // 2, dtype=torch.float64) * SAMPLE_RATE / _POINTS)
    ends = _mel(torch.tensor([_LOWEST_HZ, SAMPLE_RATE / 2], dtype=torch.float64))
    step = (ends[1] - ends[0]) / (MELS + 1)
    centres = ends[0] + step * torch.arange(1, MELS + 1, dtype=torch.float64)
    distance = (bins[:, None] - centres).abs() / step
    return (1 - distance).clamp_min(0).float()
