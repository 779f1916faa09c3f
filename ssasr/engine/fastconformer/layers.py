"""The encoder's layers for a processor: products, and between them ``loops``.

What ``encoder.Block`` says in operations of torch is here a layer's weights as those loops take
them; the numbers are the same but for the order of sums.
"""

from typing import Self

import numpy as np
from attrs import frozen
from torch import Tensor, from_numpy, nn
from torch.nn import functional as fn

from ssasr.engine.fastconformer import loops
from ssasr.engine.fastconformer.encoder import Block, FeedForward
from ssasr.engine.fastconformer.loops import Floats, Heads, Norm, Product, Rounding, Streams, Taps
from ssasr.engine.kernels import Int8Linear, Kernel

_WHOLE, _HALF = np.float32(1.0), np.float32(0.5)
_AS_IT_IS = Rounding(np.float32(0.0), np.float32(1.0))


@frozen(eq=False)
class Linear:
    """A linear layer in two: how its inputs are rounded, and the product of what they become."""

    rounding: Rounding
    _multiply: Kernel
    _bias: Floats

    @classmethod
    def of(cls, layer: nn.Module) -> Self:
        """A ``nn.Linear``, or one in 8 bits, which rounds by itself where its kernels take no
        zero."""
        if isinstance(layer, nn.Linear):
            return cls(_AS_IT_IS, lambda x: fn.linear(x, layer.weight), _bias(layer))
        assert isinstance(layer, Int8Linear), "a linear layer"
        packed = layer.packed
        if packed.range is None:
            return cls(_AS_IT_IS, layer, np.zeros(packed.outputs, np.float32))
        reach, least = np.float32(packed.range.reach), np.float32(packed.range.least_step)
        bias = np.zeros(packed.outputs) if packed.bias is None else packed.bias.numpy()
        return cls(Rounding(reach, least), packed.multiply, bias.astype(np.float32))

    def __call__(self, rows: Floats, steps: Floats) -> Product:
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
        inputs = np.empty_like(x)
        steps = loops.normalise_and_round(x, self.norm, self.first.rounding, inputs)
        inner = self.first(inputs, steps)
        steps = loops.silu_and_round(inner, self.second.rounding)
        loops.add(x, self.second(inner.values, steps), _HALF)


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
            Heads(*map(_array, (attention.bias_u, attention.bias_v, relative.transpose(1, 2)))),
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
        ``Slots``. ``left``: frames before the chunk that are attended to."""
        self.before.add_half(x)
        rows = np.empty_like(x)
        steps = loops.normalise_and_round(x, self.attention_norm, self.qkv.rounding, rows)
        qkv, onward = self.qkv(rows, steps), self.attended.rounding
        steps = loops.attend(qkv, streams, attention, left, self.heads, onward, rows)
        loops.add(x, self.attended(rows, steps), _WHOLE)
        steps = loops.normalise_and_round(x, self.convolution_norm, self.gated.rounding, rows)
        gated, onward = self.gated(rows, steps), self.convolved.rounding
        steps = loops.convolve(gated, streams, convolution, self.taps, self.taps_norm, onward, rows)
        loops.add(x, self.convolved(rows, steps), _WHOLE)
        self.after.add_half(x)
        loops.normalise(x, self.norm)
