"""The encoder's parts for a processor: products, and between them ``loops``.

What ``encoder.Block`` and ``encoder.Subsampling`` say in operations of torch is here their weights
as those loops take them; the numbers are the same but for the order of sums.
"""

from functools import partial
from typing import Self

import numpy as np
from attrs import frozen
from torch import Tensor, from_numpy, nn
from torch.nn import functional as fn

from ssasr.engine.fastconformer import loops
from ssasr.engine.fastconformer.encoder import Block, FeedForward, SubsamplingStage
from ssasr.engine.fastconformer.encoder import Subsampling as SubsamplingNetwork
from ssasr.engine.fastconformer.loops import (
    Floats,
    Heads,
    Inputs,
    Norm,
    Product,
    Rounding,
    Streams,
    Stretch,
    Taps,
)
from ssasr.engine.kernels import Int8Linear, Kernel

_WHOLE, _HALF = np.float32(1.0), np.float32(0.5)
_AS_IT_IS = Rounding(*map(np.float32, (0.0, 0.0, 1.0)))


@frozen(eq=False)
class Linear:
    """A linear layer in two: how its inputs are rounded, and the product of what they become."""

    rounding: Rounding
    _inputs: int
    _multiply: Kernel
    _bias: Floats

    @classmethod
    def of(cls, layer: nn.Module) -> Self:
        """A ``nn.Linear``, or one in 8 bits, which rounds by itself where its kernels take no
        zero."""
        if isinstance(layer, nn.Linear):
            product = partial(fn.linear, weight=layer.weight)
            return cls(_AS_IT_IS, layer.in_features, product, _bias(layer))
        assert isinstance(layer, Int8Linear), "a linear layer"
        packed = layer.packed
        if packed.range is None:
            return cls(_AS_IT_IS, packed.inputs, layer, np.zeros(packed.outputs, np.float32))
        given = (packed.range.zero, packed.range.reach, packed.range.least_step)
        bias = np.zeros(packed.outputs) if packed.bias is None else packed.bias.numpy()
        rounding = Rounding(*map(np.float32, given))
        return cls(rounding, packed.inputs, packed.multiply, bias.astype(np.float32))

    def empty(self, rows: int) -> Inputs:
        """(rows, inputs): to write what the product takes."""
        shape = (rows, self._inputs)
        return np.empty(shape, np.uint8) if self.rounding.reach else np.empty(shape, np.float32)

    def __call__(self, rows: Inputs, steps: Floats) -> Product:
        """``rows`` (rows, inputs), rounded, and their ``steps``."""
        return Product(self._multiply(from_numpy(rows)).numpy(), steps, self._bias)


def _bias(layer: nn.Linear) -> Floats:
    bias: Tensor | None = layer.bias
    return np.zeros(layer.out_features, np.float32) if bias is None else _array(bias)


def _array(tensor: Tensor) -> Floats:
    found: Floats = tensor.detach().float().contiguous().numpy()
    return found


def _norm(layer: nn.LayerNorm) -> Norm:
    return Norm(_array(layer.weight), _array(layer.bias))


@frozen(eq=False)
class _FeedForward:
    norm: Norm
    first: Linear
    second: Linear

    @classmethod
    def of(cls, norm: nn.LayerNorm, layer: FeedForward) -> Self:
        return cls(_norm(norm), Linear.of(layer.linear1), Linear.of(layer.linear2))

    def add_half(self, x: Floats) -> None:
        inputs, further = self.first.empty(len(x)), self.second.empty(len(x))
        steps = loops.normalise_and_round(x, self.norm, self.first.rounding, inputs)
        inner = self.first(inputs, steps)
        steps = loops.silu_and_round(inner, self.second.rounding, further)
        loops.add(x, self.second(further, steps), _HALF)


@frozen(eq=False)
class Layer:
    """One ``encoder.Block``."""

    before: _FeedForward
    attention_norm: Norm
    qkv: Linear
    heads: Heads
    attended: Linear
    convolution_norm: Norm
    gated: Linear
    taps: Taps
    taps_norm: Norm
    convolved: Linear
    after: _FeedForward
    norm: Norm

    @classmethod
    def of(cls, block: Block, relative: Tensor) -> Self:
        """``relative`` (heads, head size, left + 2 c - 1): see ``Encoder.relative_keys``."""
        attention, convolution = block.self_attn, block.conv
        depthwise = convolution.depthwise_conv
        taps = _array(depthwise.weight[:, 0].t())
        none = np.zeros(taps.shape[1], np.float32)
        return cls(
            _FeedForward.of(block.norm_feed_forward1, block.feed_forward1),
            _norm(block.norm_self_att),
            Linear.of(attention.qkv_proj),
            Heads(*map(_array, (attention.bias_u, attention.bias_v, relative))),
            Linear.of(attention.o_proj),
            _norm(block.norm_conv),
            Linear.of(convolution.pointwise_conv1),
            Taps(taps, none if depthwise.bias is None else _array(depthwise.bias)),
            _norm(convolution.norm),
            Linear.of(convolution.pointwise_conv2),
            _FeedForward.of(block.norm_feed_forward2, block.feed_forward2),
            _norm(block.norm_out),
        )

    def run(
        self, x: Floats, streams: Streams, attention: Floats, convolution: Floats, left: int
    ) -> None:
        """x (batch × c, dim), in place. ``attention``, ``convolution``: the layer's rings, see
        ``loops``. ``left``: frames before the chunk that are attended to."""
        self.before.add_half(x)
        rows, onward = self.qkv.empty(len(x)), self.attended.empty(len(x))
        steps = loops.normalise_and_round(x, self.attention_norm, self.qkv.rounding, rows)
        steps = loops.attend(
            self.qkv(rows, steps), streams, attention, left, self.heads,
            self.attended.rounding, onward,
        )  # fmt: skip
        loops.add(x, self.attended(onward, steps), _WHOLE)
        rows, onward = self.gated.empty(len(x)), self.convolved.empty(len(x))
        steps = loops.normalise_and_round(x, self.convolution_norm, self.gated.rounding, rows)
        steps = loops.convolve(
            self.gated(rows, steps), streams, convolution, self.taps, self.taps_norm,
            self.convolved.rounding, onward,
        )  # fmt: skip
        loops.add(x, self.convolved(onward, steps), _WHOLE)
        self.after.add_half(x)
        loops.normalise(x, self.norm)


@frozen(eq=False)
class _Stage:
    """A later stage of the subsampling."""

    taps: Taps
    weight: Tensor
    bias: Tensor

    def run(self, x: Floats) -> Tensor:
        """(frames, bins, channels) to (frames', bins', channels), before ReLU."""
        mixed = np.empty((*_after(x), x.shape[2]), np.float32)
        loops.convolve_channels(x, self.taps, mixed)
        return fn.linear(from_numpy(mixed), self.weight, self.bias)


@frozen(eq=False)
class Subsampling:
    """``encoder.Subsampling`` but for its linear layer, for one stream. Channels lie beside each
    other, so that a convolution over frames and bins is a sum of whole rows."""

    first: Taps
    stages: list[_Stage]

    @classmethod
    def of(cls, network: SubsamplingNetwork) -> Self:
        """With its weights."""
        stages = []
        for stage in network.layers:
            assert isinstance(stage, SubsamplingStage), "the subsampling is made of stages"
            stages.append(_Stage(_taps(stage.depthwise_conv), *_pointwise(stage.pointwise_conv)))
        return cls(_taps(network.conv_in), stages)

    def run(self, mel: Floats, first: int, frames: int) -> Tensor:
        """mel (8 c + 7, bins), which is changed, beginning with the stream's frame ``first``;
        ``frames`` the mel frames that the stream has. Gives (c, channels × bins)."""
        exists = _existing(first, frames, len(mel))
        mel[: exists.begin], mel[exists.end :] = 0.0, 0.0
        x = np.empty((*_after(mel), self.first.weight.shape[2]), np.float32)
        first, frames = first // 2 + 1, frames // 2 + 1
        loops.convolve_bins(mel, self.first, _existing(first, frames, len(x)), x)
        for stage in self.stages:
            found = stage.run(x).relu_()
            first, frames = first // 2 + 1, frames // 2 + 1
            exists = _existing(first, frames, len(found))
            found[: exists.begin], found[exists.end :] = 0.0, 0.0
            x = found.numpy()
        return from_numpy(x).transpose(1, 2).flatten(1)


def _after(x: Floats) -> tuple[int, int]:
    """Frames and bins after a stage: three of each make one, every second one does, and the bins
    have two zeros before them and one after."""
    return (len(x) - 1) // 2, x.shape[1] // 2 + 1


def _existing(first: int, frames: int, count: int) -> Stretch:
    """Of ``count`` frames from ``first`` on, those from 0 up to ``frames``."""
    begin = min(max(0, -first), count)
    return Stretch(begin, max(begin, min(count, frames - first)))


def _taps(layer: nn.Conv2d) -> Taps:
    """(3, 3, channels)."""
    assert layer.bias is not None, "convolutions of the subsampling have a bias"
    return Taps(_array(layer.weight[:, 0].permute(1, 2, 0)), _array(layer.bias))


def _pointwise(layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
    assert layer.bias is not None, "convolutions of the subsampling have a bias"
    return layer.weight[:, :, 0, 0].detach(), layer.bias.detach()
