"""The encoder's parts for a processor: products, and between them ``loops``.

What ``encoder.Block`` and ``encoder.Subsampling`` say in operations of torch is here their weights
as those loops take them; the numbers are the same but for the order of sums. A layer is one call,
and calls its products itself (``native_kernel``).
"""

from functools import partial
from typing import NamedTuple, Self

import numpy as np
from attrs import field, frozen
from torch import Tensor, from_numpy, nn
from torch.nn import functional as fn

from ssasr.engine.compiled import compiled
from ssasr.engine.fastconformer import loops
from ssasr.engine.fastconformer.encoder import Block, SubsamplingStage
from ssasr.engine.fastconformer.encoder import FeedForward as FeedForwardNetwork
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
from ssasr.engine.native_kernel import Call, NativeKernel, Result, free, multiply

_WHOLE, _HALF = np.float32(1.0), np.float32(0.5)
_AS_IT_IS = Rounding(*map(np.float32, (0.0, 0.0, 1.0)))


class Linear(NamedTuple):
    """A linear layer in two: how its inputs are rounded, and the product of what they become."""

    rounding: Rounding
    product: Call
    inputs: Inputs
    """(0, inputs): none yet, of the type that the product takes."""
    bias: Floats
    """(outputs,)."""


class FeedForward(NamedTuple):
    """Of ``encoder.FeedForward`` and the normalisation before it."""

    norm: Norm
    first: Linear
    second: Linear


class Weights(NamedTuple):
    """Of an ``encoder.Block``."""

    before: FeedForward
    attention_norm: Norm
    qkv: Linear
    heads: Heads
    attended: Linear
    convolution_norm: Norm
    gated: Linear
    taps: Taps
    taps_norm: Norm
    convolved: Linear
    after: FeedForward
    norm: Norm


@frozen(eq=False)
class Layer:
    """One ``encoder.Block``, in one call from Python."""

    weights: Weights
    _kernels: tuple[NativeKernel, ...] = field(repr=False)
    """Of the weights' products."""

    @classmethod
    def of(cls, block: Block, relative: Tensor) -> Self:
        """``relative`` (heads, head size, left + 2 c - 1): see ``Encoder.relative_keys``."""
        kernels: list[NativeKernel] = []
        attention, convolution = block.self_attn, block.conv
        depthwise = convolution.depthwise_conv
        taps = _array(depthwise.weight[:, 0].t())
        none = np.zeros(taps.shape[1], np.float32)
        weights = Weights(
            _feed_forward(block.norm_feed_forward1, block.feed_forward1, kernels),
            _norm(block.norm_self_att),
            _linear(attention.qkv_proj, kernels),
            Heads(*map(_array, (attention.bias_u, attention.bias_v, relative))),
            _linear(attention.o_proj, kernels),
            _norm(block.norm_conv),
            _linear(convolution.pointwise_conv1, kernels),
            Taps(taps, none if depthwise.bias is None else _array(depthwise.bias)),
            _norm(convolution.norm),
            _linear(convolution.pointwise_conv2, kernels),
            _feed_forward(block.norm_feed_forward2, block.feed_forward2, kernels),
            _norm(block.norm_out),
        )
        return cls(weights, tuple(kernels))

    def run(
        self, x: Floats, streams: Streams, attention: Floats, convolution: Floats, left: int
    ) -> None:
        """x (batch × c, dim), in place. ``attention``, ``convolution``: the layer's rings, see
        ``loops``. ``left``: frames before the chunk that are attended to. Raises RuntimeError if a
        product fails."""
        _run(x, streams, attention, convolution, left, self.weights)


@compiled
def _run(
    x: Floats,
    streams: Streams,
    attention: Floats,
    convolution: Floats,
    left: int,
    weights: Weights,
) -> None:
    _add_half(x, weights.before)
    steps, result = _normalised_product(x, weights.attention_norm, weights.qkv)
    product, rows = Product(result.values, steps, weights.qkv.bias), _empty(weights.attended, x)
    rounding = weights.attended.rounding
    steps = loops.attend(product, streams, attention, left, weights.heads, rounding, rows)
    free(result)
    _add_product(x, weights.attended, rows, steps, _WHOLE)

    steps, result = _normalised_product(x, weights.convolution_norm, weights.gated)
    product, rows = Product(result.values, steps, weights.gated.bias), _empty(weights.convolved, x)
    steps = loops.convolve(
        product, streams, convolution, weights.taps, weights.taps_norm,
        weights.convolved.rounding, rows,
    )  # fmt: skip
    free(result)
    _add_product(x, weights.convolved, rows, steps, _WHOLE)
    _add_half(x, weights.after)
    loops.normalise(x, weights.norm)


@compiled
def _add_half(x: Floats, part: FeedForward) -> None:
    steps, result = _normalised_product(x, part.norm, part.first)
    product, rows = Product(result.values, steps, part.first.bias), _empty(part.second, x)
    steps = loops.silu_and_round(product, part.second.rounding, rows)
    free(result)
    _add_product(x, part.second, rows, steps, _HALF)


@compiled
def _normalised_product(x: Floats, norm: Norm, layer: Linear) -> tuple[Floats, Result]:
    """The steps and the product."""
    rows = _empty(layer, x)
    steps = loops.normalise_and_round(x, norm, layer.rounding, rows)
    return steps, multiply(layer.product, rows, len(layer.bias))


@compiled
def _add_product(x: Floats, layer: Linear, rows: Inputs, steps: Floats, factor: np.float32) -> None:
    result = multiply(layer.product, rows, len(layer.bias))
    loops.add(x, Product(result.values, steps, layer.bias), factor)
    free(result)


@compiled
def _empty(layer: Linear, x: Floats) -> Inputs:
    """(rows, inputs): to write what the product takes."""
    return np.empty((len(x), layer.inputs.shape[1]), layer.inputs.dtype)


# -- as the loops take them ------------------------------------------------------------------------


def _feed_forward(
    norm: nn.LayerNorm, layer: FeedForwardNetwork, kernels: list[NativeKernel]
) -> FeedForward:
    return FeedForward(
        _norm(norm), _linear(layer.linear1, kernels), _linear(layer.linear2, kernels)
    )


def _linear(layer: nn.Module, kernels: list[NativeKernel]) -> Linear:
    """Of a ``nn.Linear``, or of one in 8 bits, which rounds by itself where its kernels take no
    zero. Its kernel is added to the others."""
    if isinstance(layer, nn.Linear):
        product = partial(fn.linear, weight=layer.weight)
        return _floats(product, layer.in_features, layer.out_features, layer.bias, kernels)
    assert isinstance(layer, Int8Linear), "a linear layer"
    packed = layer.packed
    if packed.range is None:
        return _floats(layer, packed.inputs, packed.outputs, None, kernels)
    given = (packed.range.zero, packed.range.reach, packed.range.least_step)
    kernels.append(packed.multiply.native())
    return Linear(
        Rounding(*map(np.float32, given)),
        kernels[-1].call,
        np.empty((0, packed.inputs), np.uint8),
        _bias(packed.bias, packed.outputs),
    )


def _floats(
    product: Kernel, inputs: int, outputs: int, bias: Tensor | None, kernels: list[NativeKernel]
) -> Linear:
    """One whose product takes floats."""
    kernels.append(NativeKernel.from_python(product, inputs, np.float32))
    none = np.empty((0, inputs), np.float32)
    return Linear(_AS_IT_IS, kernels[-1].call, none, _bias(bias, outputs))


def _bias(given: Tensor | None, outputs: int) -> Floats:
    return np.zeros(outputs, np.float32) if given is None else _array(given)


def _array(tensor: Tensor) -> Floats:
    found: Floats = tensor.detach().float().contiguous().numpy()
    return found


def _norm(layer: nn.LayerNorm) -> Norm:
    return Norm(_array(layer.weight), _array(layer.bias))


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
