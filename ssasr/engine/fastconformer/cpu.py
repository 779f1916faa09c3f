"""The program as a processor runs it best: the same numbers in another order of work.

A GPU wants one operation for all rows; a processor wants its operands in the cache, and may look
at values. So the layers, which are products with large weights, take all rows of the batch at
once, and the rest takes one stream after the other:

* *Attention* reads keys and values where they lie. A slot's ring is attended to as a whole, in
  whatever order it is in: the order of the keys makes no difference but for the scores of their
  positions, which are looked up by each key's distance, and what the ring holds beyond the left
  context is masked. Bringing keys into the order of time took as long as attention itself.
* *Features and subsampling* of one stream stay in the second cache, those of sixteen do not.
* *The depthwise convolution* is nine products of whole rows.
* *Decoding* goes on only with the rows that have not finished.

It also makes a row's numbers independent of the batch: what is done for one stream alone has the
same shape whatever its company, the layers of ``quantized`` are exact, and all else is done number
by number.
"""

import math

import torch
from attrs import frozen
from torch import Tensor
from torch.nn import functional as fn

from ssasr.engine.fastconformer.biasing import NO_PARENT, Biasing
from ssasr.engine.fastconformer.encoder import (
    MEL_CONTEXT,
    Attention,
    Block,
    Convolution,
    Span,
    Subsampling,
)
from ssasr.engine.fastconformer.program import Program, Running, SpeechDetector
from ssasr.engine.fastconformer.slots import SlotCache, Slots
from ssasr.engine.fastconformer.transducer import Model

_FORBIDDEN = torch.finfo(torch.float32).min / 2


@frozen
class _Row:
    """One stream's part of attention."""

    keys: list[Tensor]
    """Of each layer (1, heads, ring, head size), where they lie."""
    values: list[Tensor]
    columns: Tensor
    """(heads, c, ring): of the position scores, for each query and key."""
    masked: Tensor
    """(ring,) bool: keys that do not exist."""


class CpuProgram(Program):
    """See ``Program``, whose answers it gives."""

    def __init__(self, model: Model, slots: Slots, detector: SpeechDetector) -> None:
        super().__init__(model, slots, detector)
        encoder = self.layout.config.encoder
        self._relative = self._relative * encoder.head_size**-0.5
        self._taps = [_taps(block.conv) for block in self._blocks()]
        self._views: dict[int, tuple[list[Tensor], list[Tensor]]] = {}

    def decode(self, running: Running) -> None:
        """See ``Program``."""
        decoding = running.decoding
        while len(rows := decoding.active().nonzero()[:, 0]):
            if len(rows) == len(decoding.counts):
                self.advance(running)
                continue
            part = decoding.part(rows)
            part.advance(self.model, self._most_per_frame)
            decoding.put(rows, part)

    def _biasing(self, slot: Tensor, chunk: Tensor) -> Biasing | None:
        listed = self.slots.terms.parents[slot, 0] != NO_PARENT
        return super()._biasing(slot, chunk) if bool(listed.any()) else None

    def _frames(self, source: Tensor, slot: Tensor, span: Span, end: Tensor) -> Tensor:
        config = self.layout.config.encoder
        x: Tensor = self.model.encoder.subsampling.linear(self._subsampled(source, span, end))
        if config.scale_input:
            x = x * math.sqrt(config.hidden_size)
        cache = SlotCache.of(self.slots, slot, span.first)
        rows = self._rows(slot, span)
        young = span.first < config.conv_context
        exists = _convolved(span, config.conv_context, x.shape[1]) if bool(young.any()) else None
        for number, block in enumerate(self._blocks()):
            x = block.before_attention(x)
            x = x + self._attended(number, block.self_attn, block.norm_self_att(x), cache, rows)
            gated = cache.convolution(number, block.conv.gate(block.norm_conv(x)))
            if exists is not None:
                gated = torch.where(exists, gated, 0.0)
            mixed = _depthwise(gated, *self._taps[number])
            x = x + block.conv.pointwise_conv2(fn.silu(block.conv.norm(mixed)))
            x = block.after_convolution(x)
        return x

    def _blocks(self) -> list[Block]:
        return list(self.model.encoder._blocks())

    # -- features ----------------------------------------------------------------------------------

    def _subsampled(self, source: Tensor, span: Span, end: Tensor) -> Tensor:
        """(batch, c, channels × bins): all of the subsampling but its linear layer."""
        network, found = self.model.encoder.subsampling, []
        places = zip(span.first.tolist(), span.mel_frames.tolist(), strict=True)
        for row, (first, mel_frames) in enumerate(places):
            one = slice(row, row + 1)
            mel = self._mel(source[one], span.first[one], end[one])
            found.append(_subsample(network, mel, first, mel_frames))
        return torch.cat(found)

    # -- attention ---------------------------------------------------------------------------------

    def _rows(self, slot: Tensor, span: Span) -> list[_Row]:
        layout, heads = self.layout, self.layout.config.encoder.num_attention_heads
        ring, count = layout.attention_ring, layout.chunk_frames
        # Frames from the chunk's first on, or before it if negative, that each place holds.
        after = span.first[:, None] + count
        offset = (torch.arange(ring) - after) % ring - (ring - count)
        frame = span.first[:, None] + offset
        exists = (offset >= -layout.left) & (frame >= 0) & (frame < span.frames()[:, None])
        query = torch.arange(count)[:, None]
        columns = (layout.left + count - 1 + offset[:, None] - query).clamp(min=0)
        return [
            _Row(*self._keys_values(number), each.expand(heads, -1, -1), masked)
            for number, each, masked in zip(slot.tolist(), columns, ~exists, strict=True)
        ]

    def _keys_values(self, slot: int) -> tuple[list[Tensor], list[Tensor]]:
        if slot not in self._views:
            config, ring = self.layout.config.encoder, self.layout.attention_ring
            shape = (1, ring, 2, config.num_attention_heads, config.head_size)
            views = [layer[slot].view(shape).transpose(1, 3) for layer in self.slots.attention]
            self._views[slot] = [view[:, :, 0] for view in views], [view[:, :, 1] for view in views]
        return self._views[slot]

    def _attended(
        self, number: int, attention: Attention, x: Tensor, cache: SlotCache, rows: list[_Row]
    ) -> Tensor:
        """(batch, c, dim): what the layer's attention adds to it."""
        batch, count, dim = x.shape
        queries, new = attention.project(x)
        cache.keep(number, new)
        by_head = queries.view(batch, count, attention.heads, attention.head_size)
        to_keys = (by_head + attention.bias_u).transpose(1, 2)
        to_places = (by_head + attention.bias_v).transpose(1, 2)
        relative, mixed = self._relative[number], []
        for row, key_query, place_query in zip(rows, to_keys, to_places, strict=True):
            scores = torch.bmm(place_query, relative).gather(2, row.columns)
            scores.masked_fill_(row.masked, _FORBIDDEN)
            mixed.append(
                fn.scaled_dot_product_attention(
                    key_query[None], row.keys[number], row.values[number], attn_mask=scores[None]
                )
            )
        together = torch.cat(mixed).transpose(1, 2).reshape(batch, count, dim)
        return attention.o_proj(together)  # type: ignore[no-any-return]


def _subsample(network: Subsampling, mel: Tensor, first: int, mel_frames: int) -> Tensor:
    """``Subsampling.forward`` but for the linear layer, for one row (1, 8 c + 7, bins)."""
    first, length = 8 * first - MEL_CONTEXT, mel_frames
    x = _only_existing(mel[:, None], first, length)
    for stage in (network.conv_in, *network.layers):
        x = stage(fn.pad(x, (2, 1)) if stage is network.conv_in else x)
        first, length = first // 2 + 1, length // 2 + 1
        x = _only_existing(x, first, length).relu_()
    return x.transpose(1, 2).flatten(2)


def _only_existing(x: Tensor, first: int, length: int) -> Tensor:
    """x (1, channels, frames, bins), zero in its frames before the stream's first and after its
    last; it is changed."""
    if first < 0:
        x[:, :, :-first] = 0.0
    if first + x.shape[2] > length:
        x[:, :, max(0, length - first) :] = 0.0
    return x


def _convolved(span: Span, context: int, count: int) -> Tensor:
    """(batch, context + c, 1): inputs of the depthwise convolution that exist."""
    return (span.first[:, None] + torch.arange(-context, count) >= 0)[..., None]


def _taps(layer: Convolution) -> tuple[list[Tensor], Tensor | None]:
    """Weights of the depthwise convolution, (dim,) each, and its bias."""
    convolution = layer.depthwise_conv
    return list(convolution.weight[:, 0].t().contiguous()), convolution.bias


def _depthwise(x: Tensor, taps: list[Tensor], bias: Tensor | None) -> Tensor:
    """(batch, context + c, dim) to (batch, c, dim)."""
    count = x.shape[1] - len(taps) + 1
    found = x[:, :count] * taps[0]
    for place, tap in enumerate(taps[1:], 1):
        found.addcmul_(x[:, place : place + count], tap)
    return found if bias is None else found.add_(bias)
