"""The cache-aware FastConformer encoder: one chunk of every stream in, its encoder frames out.

Three clocks. Audio has 16,000 samples a second, log-mel 100 frames, and the encoder,
after three strided convolutions, 12.5 frames of 80 ms. Encoder frame ``j`` is centred on mel frame
``8 j`` and knows nothing of later mel frames except through attention; a *chunk* is ``c``
consecutive encoder frames, and chunk ``k`` covers frames ``c k .. c k + c - 1`` of its stream.
Frames of one chunk see each other (that is the model's lookahead, 0 to ``c - 1`` frames) and the
whole chunks before it, as many as fit in the trained left context. The model was trained with
exactly that mask, therefore encoding chunk by chunk gives what encoding the whole utterance at
once would give, and each frame is encoded once. (Noroozi et al., "Stateful Conformer with
Cache-based Inference for Streaming ASR", 2312.17279.)

What must be remembered between chunks is then, for each layer, the keys and values of the left
context, and the last eight inputs of the causal depthwise convolution. That is all the state there
is.

* *Subsampling keeps no state.* Encoder frame ``j`` depends on mel frames ``8 j - 14 .. 8 j`` only,
  so a chunk is subsampled from ``8 c + 7`` mel frames, seven of them computed again each time.
  This costs less than 1 % of the step, and it frees us from three caches with three different
  phases. Frames before the beginning of the stream or after its end do not exist; training padded
  the *output of every stage* with zeros there, which is not what a convolution gives when it is
  run over zeros (it has a bias), hence a mask after each stage. A young stream, an old one and one
  that ends inside this chunk are thus the same shape and differ in two integers a row: its first
  frame and its number of mel frames (``Span``).
* *Caches are the caller's.* ``EncoderCache`` hands a layer its past and takes its present. Which
  slot, which ring position, which memory is decided in ``slots.py``; ``WholePast`` below, a
  growing list, is the specification that the tests hold the slots against. The past of a young
  stream is shorter than what the cache returns; whatever the surplus holds (another stream's
  frames) is masked here, never cleared there.
* *Relative positions are the same for every row*, since all rows have ``c`` queries and ``left +
  c`` keys ending at the same place. The projection of the position encodings is a constant of
  (layer, chunk size) and is computed once (``relative_keys``), where the reference projects it in
  every layer of every step.

Attention scores (Dai et al., Transformer-XL, 1901.02860, appendix B): with content bias u,
position bias v and the projected encoding r of the distance, ``score = ((q + u) k + (q + v) r) /
sqrt(head size)``. Query i and key j of a chunk are ``left + i - j`` frames apart. Against
encodings ordered by falling distance that is column ``c - 1 - i + j``: every row shifted by one
against the last, which is a view with another stride.
"""

import math
from collections.abc import Iterator
from typing import Protocol

import torch
from attrs import define, field, frozen
from torch import Tensor, nn
from torch.nn import functional as fn

from ssasr.engine.fastconformer.config import EncoderConfig

MEL_CONTEXT = 14
"""Mel frames before an encoder frame's centre that reach it through the subsampling."""
_STAGES = 3


@frozen
class Span:
    """Where each row's chunk lies in its stream. ``first``: (batch,) index of the chunk's first
    encoder frame. ``mel_frames``: (batch,) mel frames the stream has; any number at or beyond the
    chunk's last while the stream goes on. Both int64."""

    first: Tensor
    mel_frames: Tensor

    def frames(self) -> Tensor:
        """(batch,) encoder frames the stream has."""
        return encoder_frames(self.mel_frames)


def encoder_frames(mel_frames: Tensor) -> Tensor:
    """Encoder frames that come of so many mel frames, elementwise: three times ``n // 2 + 1``."""
    for _ in range(_STAGES):
        mel_frames = mel_frames // 2 + 1
    return mel_frames


class EncoderCache(Protocol):
    """The past of every row of a batch. Each method returns the row's last frames followed by
    ``new``, and keeps ``new`` for the next chunk."""

    def attention(self, layer: int, new: Tensor) -> Tensor:
        """Keys and values side by side: (batch, c, 2 dim) to (batch, left + c, 2 dim)."""

    def convolution(self, layer: int, new: Tensor) -> Tensor:
        """Inputs of the depthwise convolution: (batch, c, dim) to (batch, context + c, dim)."""


@define
class WholePast:
    """The specification of a cache: keeps everything, row by row in the order of the batch."""

    left: int
    context: int
    _attention: dict[int, Tensor] = field(factory=dict)
    _convolution: dict[int, Tensor] = field(factory=dict)

    def attention(self, layer: int, new: Tensor) -> Tensor:
        """See ``EncoderCache``."""
        return _extend(self._attention, layer, new, self.left)

    def convolution(self, layer: int, new: Tensor) -> Tensor:
        """See ``EncoderCache``."""
        return _extend(self._convolution, layer, new, self.context)


def _extend(kept: dict[int, Tensor], layer: int, new: Tensor, past: int) -> Tensor:
    if layer not in kept:
        kept[layer] = new.new_zeros(new.shape[0], past, new.shape[2])
    kept[layer] = torch.cat([kept[layer], new], dim=1)
    return kept[layer][:, -(past + new.shape[1]) :]


class SubsamplingStage(nn.Module):
    """Depthwise strided convolution and a pointwise one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise_conv = nn.Conv2d(channels, channels, 3, stride=2, groups=channels)
        self.pointwise_conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise_conv(self.depthwise_conv(_pad_bins(x)))  # type: ignore[no-any-return]


def _pad_bins(x: Tensor) -> Tensor:
    return fn.pad(x, (2, 1))


class Subsampling(nn.Module):
    """(batch, 8 c + 7, bins) to (batch, c, dim)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        channels = config.subsampling_conv_channels
        self.conv_in = nn.Conv2d(1, channels, 3, stride=2)
        self.layers = nn.ModuleList(SubsamplingStage(channels) for _ in range(_STAGES - 1))
        self.linear = nn.Linear(channels * config.subsampled_bins, config.hidden_size)

    def forward(self, mel: Tensor, span: Span) -> Tensor:
        # First frame, in each stage's own clock, of what the window holds, and how many exist.
        first, length = 8 * span.first - MEL_CONTEXT, span.mel_frames
        x = torch.where(_existing(first, length, mel.shape[1])[..., None], mel, 0.0)
        x = self.conv_in(_pad_bins(x[:, None]))
        for number in range(_STAGES):
            if number:
                x = self.layers[number - 1](x)
            # Output j of a stage is centred on its input 2 j and begins two inputs earlier.
            first, length = first // 2 + 1, length // 2 + 1
            exists = _existing(first, length, x.shape[2])
            x = torch.where(exists[:, None, :, None], x, 0.0).relu()
        return self.linear(x.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def _existing(first: Tensor, length: Tensor, window: int) -> Tensor:
    """(batch, window) whether frame ``first + i`` of each row exists."""
    index = first[:, None] + torch.arange(window, device=first.device)
    return (index >= 0) & (index < length[:, None])


class FeedForward(nn.Module):
    """(batch, c, dim) to the same."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        bias = config.attention_bias
        self.linear1 = nn.Linear(config.hidden_size, config.intermediate_size, bias=bias)
        self.linear2 = nn.Linear(config.intermediate_size, config.hidden_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(fn.silu(self.linear1(x)))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Relative-position attention of a chunk over itself and its left context."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        dim, bias = config.hidden_size, config.attention_bias
        self.heads, self.head_size = config.num_attention_heads, config.head_size
        # One product instead of three; checkpoint.py joins the checkpoint's q, k and v.
        self.qkv_proj = nn.Linear(dim, 3 * dim, bias=bias)
        self.o_proj = nn.Linear(dim, dim, bias=bias)
        self.relative_k_proj = nn.Linear(dim, dim, bias=False)
        self.bias_u = nn.Parameter(torch.zeros(self.heads, self.head_size))
        self.bias_v = nn.Parameter(torch.zeros(self.heads, self.head_size))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, c, dim) to queries (batch, c, dim) and new keys and values (batch, c, 2 dim)."""
        dim = x.shape[2]
        queries, keys_values = self.qkv_proj(x).split([dim, 2 * dim], dim=2)
        return queries, keys_values

    def relative_keys(self, encodings: Tensor) -> Tensor:
        """Position encodings (positions, dim), projected."""
        return self.relative_k_proj(encodings)  # type: ignore[no-any-return]

    def attend(
        self, queries: Tensor, keys_values: Tensor, relative: Tensor, usable: Tensor
    ) -> Tensor:
        """``keys_values`` (batch, keys, 2 dim); ``relative`` (heads, head size, keys + c - 1);
        ``usable`` (batch, keys), which keys exist. Gives (batch, c, dim)."""
        batch, count, dim = queries.shape
        keys = keys_values.shape[1]
        by_head = queries.view(batch, count, self.heads, self.head_size)
        position = self._position_scores(by_head, relative, keys)
        forbidden = torch.finfo(position.dtype).min / 2  # a row without any usable key stays finite
        scores = position.masked_fill(~usable[:, None, None, :], forbidden)
        key, value = keys_values.view(batch, keys, 2, self.heads, self.head_size).unbind(2)
        mixed = fn.scaled_dot_product_attention(
            (by_head + self.bias_u).transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=scores,
        )
        mixed = mixed.transpose(1, 2).reshape(batch, count, dim)
        return self.o_proj(mixed)  # type: ignore[no-any-return]

    def _position_scores(self, queries: Tensor, relative: Tensor, keys: int) -> Tensor:
        """(batch, heads, c, keys), scaled."""
        batch, count = queries.shape[:2]
        rows = (queries + self.bias_v).permute(2, 0, 1, 3).reshape(self.heads, -1, self.head_size)
        table = (rows @ relative) * self.head_size**-0.5
        width = relative.shape[2]
        shifted = table.as_strided(
            (self.heads, batch, count, keys),
            (batch * count * width, count * width, width - 1, 1),
            count - 1,
        )
        by_row: Tensor = shifted.transpose(0, 1)
        return by_row


class Convolution(nn.Module):
    """Pointwise, gated, causal depthwise, pointwise."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        dim, bias = config.hidden_size, config.convolution_bias
        self.pointwise_conv1 = nn.Linear(dim, 2 * dim, bias=bias)
        self.depthwise_conv = nn.Conv1d(dim, dim, config.conv_kernel_size, groups=dim, bias=bias)
        self.norm = nn.LayerNorm(dim)
        self.pointwise_conv2 = nn.Linear(dim, dim, bias=bias)

    def gate(self, x: Tensor) -> Tensor:
        """(batch, c, dim) to what the depthwise convolution takes, the same shape."""
        return fn.glu(self.pointwise_conv1(x), dim=-1)

    def convolve(self, gated: Tensor) -> Tensor:
        """(batch, context + c, dim) to (batch, c, dim)."""
        x = self.depthwise_conv(gated.transpose(1, 2)).transpose(1, 2)
        return self.pointwise_conv2(fn.silu(self.norm(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """One conformer layer: half a feed-forward, attention, convolution, the other half."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.feed_forward1 = FeedForward(config)
        self.self_attn = Attention(config)
        self.conv = Convolution(config)
        self.feed_forward2 = FeedForward(config)
        self.norm_feed_forward1 = nn.LayerNorm(config.hidden_size)
        self.norm_self_att = nn.LayerNorm(config.hidden_size)
        self.norm_conv = nn.LayerNorm(config.hidden_size)
        self.norm_feed_forward2 = nn.LayerNorm(config.hidden_size)
        self.norm_out = nn.LayerNorm(config.hidden_size)

    def before_attention(self, x: Tensor) -> Tensor:
        """The part before attention, (batch, c, dim)."""
        return torch.add(x, self.feed_forward1(self.norm_feed_forward1(x)), alpha=0.5)

    def after_convolution(self, x: Tensor) -> Tensor:
        """The part after the convolution."""
        x = torch.add(x, self.feed_forward2(self.norm_feed_forward2(x)), alpha=0.5)
        return self.norm_out(x)  # type: ignore[no-any-return]


@frozen
class _Masks:
    usable: Tensor
    """(batch, left + c) keys that exist."""
    attended: Tensor
    """(batch, context + c, 1) convolution inputs that exist."""


class Encoder(nn.Module):
    """The whole encoder. ``forward`` is a function of its arguments; nothing is kept here."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.subsampling = Subsampling(config)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))

    def relative_keys(self, chunk_frames: int) -> Tensor:
        """The constant that ``forward`` takes: (layers, heads, head size, left + 2 c - 1), position
        encodings of the distances left + c - 1 down to 1 - c, projected by each layer."""
        config = self.config
        weight = self.subsampling.conv_in.weight
        reach = config.left_frames(chunk_frames) + chunk_frames
        distances = torch.arange(reach - 1, -chunk_frames, -1, device=weight.device)
        pairs = torch.arange(0, config.hidden_size, 2, device=weight.device)
        angles = distances[:, None] * 10_000.0 ** (-pairs / config.hidden_size)
        encodings = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(weight.dtype)
        shape = (len(distances), config.num_attention_heads, config.head_size)
        return torch.stack(
            [
                layer.self_attn.relative_keys(encodings).view(shape).permute(1, 2, 0).contiguous()
                for layer in self.blocks()
            ]
        )

    def forward(self, mel: Tensor, span: Span, cache: EncoderCache, relative: Tensor) -> Tensor:
        """``mel`` (batch, 8 c + 7, bins), beginning 14 frames before the centre of the chunk's
        first frame; gives (batch, c, dim). Frames from ``span.frames()`` on are meaningless."""
        x: Tensor = self.subsampling(mel, span)
        if self.config.scale_input:
            x = x * math.sqrt(self.config.hidden_size)
        masks = self._masks(span, x.shape[1])
        for number, block in enumerate(self.blocks()):
            x = block.before_attention(x)
            queries, new = block.self_attn.project(block.norm_self_att(x))
            keys_values = cache.attention(number, new)
            x = x + block.self_attn.attend(queries, keys_values, relative[number], masks.usable)
            gated = cache.convolution(number, block.conv.gate(block.norm_conv(x)))
            x = x + block.conv.convolve(torch.where(masks.attended, gated, 0.0))
            x = block.after_convolution(x)
        return x

    def forget_relative_projections(self) -> None:
        """Free what ``relative_keys`` needs and nothing else does. It cannot be asked
        again."""
        for layer in self.blocks():
            del layer.self_attn.relative_k_proj

    def blocks(self) -> Iterator[Block]:
        """The layers, in order."""
        for layer in self.layers:
            assert isinstance(layer, Block), "an encoder is made of blocks"
            yield layer

    def _masks(self, span: Span, count: int) -> _Masks:
        left, context = self.config.left_frames(count), self.config.conv_context
        endless = torch.full_like(span.first, torch.iinfo(torch.int64).max)
        return _Masks(
            usable=_existing(span.first - left, span.frames(), left + count),
            # Frames after the end come after every frame that counts: causality hides them.
            attended=_existing(span.first - context, endless, context + count)[..., None],
        )
