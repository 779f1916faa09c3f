"""CAM++: a voice as 192 numbers, from a few seconds in which nobody else speaks.

The network (3D-Speaker, Apache-2.0; trained on some 200,000 speakers, Chinese and English): a small
ResNet over the filterbank, a time-delay layer that halves the frames, three blocks of densely
connected layers, each masked by what the whole stretch and the second around sound like, and the
mean and deviation over time. Voices are compared by the cosine.

Batch norms after a convolution are made part of it when the weights are loaded, and convolutions
over time are products with the frames beside each other: for 3 s of speech two thirds of the time
that ``Conv1d`` takes, which is at its slowest with few channels and frames.
"""

import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssasr.engine.speakers.fbank import MELS, KaldiFbank
from ssasr.engine.weights import load_strict
from ssasr.errors import WeightsError

WIDTH = 192
"""Numbers of an embedding."""
_GROWTH = 32
_BOTTLENECK = 128
_POOLED = 100
_BLOCKS = ((12, 1), (24, 2), (16, 2))  # layers and dilation
_EPSILON = 1e-5  # of every batch norm


class CamPlusPlus(nn.Module):
    """The network, and the features before it; it holds no stream."""

    def __init__(self) -> None:
        super().__init__()
        self.features = KaldiFbank()
        self.head = _Head()
        self.tdnn = nn.Linear(5 * 32 * MELS // 8, 128)
        self.blocks = nn.ModuleList()
        width = 128
        for count, dilation in _BLOCKS:
            self.blocks.append(_Block(count, width, dilation))
            width = (width + count * _GROWTH) // 2
        self.last = _Affine(width)
        self.dense = nn.Linear(2 * width, WIDTH)

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> "CamPlusPlus":
        """From ``campplus_cn_en_common.pt``; WeightsError if what is in it does not fit."""
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
            folded = _Folding(tensors).result()
        except pickle.UnpicklingError as error:
            raise WeightsError(f"{path} holds more than tensors and is not loaded") from error
        except (OSError, RuntimeError, EOFError, KeyError, AttributeError) as error:
            raise WeightsError(f"{path} is not a CAM++ checkpoint: {error!r}") from error
        model = cls()
        load_strict(model, folded, {})
        return model.to(device).eval().requires_grad_(False)

    def embed(self, audio: Tensor) -> Tensor:
        """``audio`` (n, samples) in [-1, 1], 25 ms or more -> (n, 192)."""
        embeddings: Tensor = self(self.features(audio))
        return embeddings

    def forward(self, features: Tensor) -> Tensor:
        """``features`` (n, frames, 80) without their mean -> (n, 192)."""
        x = self.head(features)
        x = self.tdnn(_with_neighbours(x, 5, 1)[:, ::2]).relu_()
        for block in self.blocks:
            x = block(x)
        x = self.last(x)
        embeddings: Tensor = self.dense(torch.cat([x.mean(dim=1), _deviation(x)], dim=1))
        return embeddings


def _deviation(x: Tensor) -> Tensor:
    return x.std(dim=1) if x.shape[1] > 1 else torch.full_like(x[:, 0], 1e-2)


def _with_neighbours(x: Tensor, taps: int, dilation: int) -> Tensor:
    """(n, frames, channels) -> (n, frames, taps × channels): with the frames around."""
    frames, reach = x.shape[1], taps // 2 * dilation
    padded = F.pad(x, (0, 0, reach, reach))
    return torch.cat([padded[:, i * dilation :][:, :frames] for i in range(taps)], dim=2)


class _Affine(nn.Module):
    """A batch norm that is no part of anything else, and a rectifier."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        rectified: Tensor = torch.addcmul(self.shift, x, self.scale).relu_()
        return rectified


class _Residual(nn.Module):
    """Two convolutions and the way past them."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(32, 32, 3, stride=(stride, 1), padding=1)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.skip = nn.Conv2d(32, 32, 1, stride=(stride, 1)) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.conv2(self.conv1(x).relu_())
        outer: Tensor = (inner + self.skip(x)).relu_()
        return outer


class _Head(nn.Module):
    """The filterbank as a picture: (n, frames, 80) -> (n, frames, 320)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.layer1 = nn.Sequential(_Residual(2), _Residual(1))
        self.layer2 = nn.Sequential(_Residual(2), _Residual(1))
        self.conv2 = nn.Conv2d(32, 32, 3, stride=(2, 1), padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x.transpose(1, 2)[:, None]).relu_()
        x = self.conv2(self.layer2(self.layer1(x))).relu_()
        return x.flatten(1, 2).transpose(1, 2)


class _Context(nn.Module):
    """A convolution whose outputs are masked by what is around them."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.local = nn.Linear(3 * _BOTTLENECK, _GROWTH, bias=False)
        self.squeeze = nn.Linear(_BOTTLENECK, _BOTTLENECK // 2)
        self.mask = nn.Linear(_BOTTLENECK // 2, _GROWTH)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.shape[1]
        mean = x.mean(dim=1, keepdim=True)
        if frames <= _POOLED:
            around = mean
        else:
            around = F.avg_pool1d(x.transpose(1, 2), _POOLED, ceil_mode=True).transpose(1, 2)
        mask = self.mask(self.squeeze(mean + around).relu_()).sigmoid_()
        if frames > _POOLED:
            mask = mask.repeat_interleave(_POOLED, dim=1)[:, :frames]
        local: Tensor = self.local(_with_neighbours(x, 3, self.dilation))
        return local.mul_(mask)


class _Layer(nn.Module):
    def __init__(self, inputs: int, dilation: int) -> None:
        super().__init__()
        self.before = _Affine(inputs)
        self.narrow = nn.Linear(inputs, _BOTTLENECK)
        self.context = _Context(dilation)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.context(self.narrow(self.before(x)).relu_())
        return found


class _Block(nn.Module):
    """Each layer sees what all before it have found; then half the width."""

    def __init__(self, count: int, inputs: int, dilation: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(inputs + i * _GROWTH, dilation) for i in range(count))
        self.width = width = inputs + count * _GROWTH
        self.before = _Affine(width)
        self.transit = nn.Linear(width, width // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        end = x.shape[2]
        found = x.new_empty(*x.shape[:2], self.width)
        found[..., :end] = x
        for layer in self.layers:
            found[..., end : end + _GROWTH] = layer(found[..., :end])
            end += _GROWTH
        halved: Tensor = self.transit(self.before(found))
        return halved


# -- the checkpoint -------------------------------------------------------------------------------


class _Folding:
    """The checkpoint's tensors under our names, batch norms made part of what is before them."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._theirs = {n: t for n, t in tensors.items() if not n.endswith("num_batches_tracked")}
        self._ours: dict[str, Tensor] = {}

    def result(self) -> dict[str, Tensor]:
        """Raises KeyError for what is missing; what is left over keeps its name."""
        self._head()
        self._product("xvector.tdnn.linear", "xvector.tdnn.nonlinear.batchnorm", "tdnn")
        for number, (count, _) in enumerate(_BLOCKS):
            for layer in range(count):
                self._layer(
                    f"xvector.block{number + 1}.tdnnd{layer + 1}", f"blocks.{number}.layers.{layer}"
                )
            transit = f"xvector.transit{number + 1}"
            self._affine(f"{transit}.nonlinear.batchnorm", f"blocks.{number}.before")
            self._matrix(f"{transit}.linear.weight", f"blocks.{number}.transit.weight")
        self._affine("xvector.out_nonlinear.batchnorm", "last")
        self._product("xvector.dense.linear", "xvector.dense.nonlinear.batchnorm", "dense")
        return self._ours | self._theirs

    def _norm(self, name: str) -> tuple[Tensor, Tensor]:
        """Scale and shift; one without weights only brings to mean 0 and deviation 1."""
        mean, variance = (self._theirs.pop(f"{name}.running_{each}") for each in ("mean", "var"))
        scale = (variance + _EPSILON).rsqrt()
        if f"{name}.weight" not in self._theirs:
            return scale, -mean * scale
        scale = scale * self._theirs.pop(f"{name}.weight")
        return scale, self._theirs.pop(f"{name}.bias") - mean * scale

    def _affine(self, theirs: str, ours: str) -> None:
        self._ours[f"{ours}.scale"], self._ours[f"{ours}.shift"] = self._norm(theirs)

    def _matrix(self, theirs: str, ours: str) -> None:
        """Weights (outputs, inputs, taps) as (outputs, taps × inputs)."""
        self._ours[ours] = self._theirs.pop(theirs).transpose(1, 2).flatten(1)

    def _product(self, theirs: str, norm: str, ours: str) -> None:
        scale, shift = self._norm(norm)
        self._matrix(f"{theirs}.weight", f"{ours}.weight")
        self._ours[f"{ours}.weight"] = self._ours[f"{ours}.weight"] * scale[:, None]
        self._ours[f"{ours}.bias"] = shift

    def _picture(self, theirs: str, norm: str, ours: str) -> None:
        scale, shift = self._norm(norm)
        weight = self._theirs.pop(f"{theirs}.weight")
        self._ours[f"{ours}.weight"] = weight * scale[:, None, None, None]
        self._ours[f"{ours}.bias"] = shift

    def _head(self) -> None:
        for end in ("conv1", "conv2"):
            self._picture(f"head.{end}", f"head.bn{end[-1]}", f"head.{end}")
        for layer in ("layer1", "layer2"):
            for number in (0, 1):
                name = f"head.{layer}.{number}"
                for part in ("1", "2"):
                    self._picture(f"{name}.conv{part}", f"{name}.bn{part}", f"{name}.conv{part}")
            past = f"head.{layer}.0.shortcut"
            self._picture(f"{past}.0", f"{past}.1", f"head.{layer}.0.skip")

    def _layer(self, theirs: str, ours: str) -> None:
        self._affine(f"{theirs}.nonlinear1.batchnorm", f"{ours}.before")
        self._product(f"{theirs}.linear1", f"{theirs}.nonlinear2.batchnorm", f"{ours}.narrow")
        cam, context = f"{theirs}.cam_layer", f"{ours}.context"
        self._matrix(f"{cam}.linear_local.weight", f"{context}.local.weight")
        for part, name in (("linear1", "squeeze"), ("linear2", "mask")):
            self._matrix(f"{cam}.{part}.weight", f"{context}.{name}.weight")
            self._ours[f"{context}.{name}.bias"] = self._theirs.pop(f"{cam}.{part}.bias")
