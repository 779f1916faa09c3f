"""The state of all streams, in tensors that are allocated once and addressed by slot.

A slot is a row of every tensor below. Everything that grows with time lies in a ring, addressed by
the stream's own clock (sample, frame or chunk number modulo the ring's size), and nothing in a
slot says how old its stream is: positions come in with each step, from the host. Hence

* a stream joins by being given a row, whatever is left in it: what lies before position 0 is
  masked by those who read (``encoder.Span``), and the text before chunk 0 is a constant;
* a stream leaves by its row being given to another one;
* a stream *goes back* by stepping from an earlier position. The rings are ``rewind`` chunks longer
  than the model needs, so that the last ``rewind`` chunks can be taken back exactly. Finalising at
  a sample that the engine has already passed is that.

Row number ``slots``, the padding slot, belongs to no stream. Rows of a batch that are only there to
fill it read and write it.
"""

from typing import Self

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from ssasr.engine.fastconformer.biasing import EDGES, TermSlots
from ssasr.engine.fastconformer.config import FRAME, HOP, ModelConfig
from ssasr.engine.fastconformer.encoder import MEL_CONTEXT
from ssasr.engine.fastconformer.features import REACH

LOOKBACK = HOP * MEL_CONTEXT + REACH + 1
"""Samples before the centre of a chunk's first frame that are needed to compute it."""
VAD_UNITS = 128
"""Width of the speech detector's LSTM."""


@frozen
class Layout:
    """How large everything is."""

    config: ModelConfig
    slots: int
    chunk_frames: int
    rewind: int
    """Chunks that can be taken back; at least one."""

    @property
    def chunk(self) -> int:
        """Samples of a chunk."""
        return self.chunk_frames * FRAME

    @property
    def left(self) -> int:
        """Frames of left context."""
        return self.config.encoder.left_frames(self.chunk_frames)

    @property
    def attention_ring(self) -> int:
        """Frames of keys and values kept."""
        return self.left + self.chunk_frames * self.rewind

    @property
    def convolution_ring(self) -> int:
        """Frames of convolution inputs kept."""
        return self.config.encoder.conv_context + self.chunk_frames * self.rewind

    @property
    def text_ring(self) -> int:
        """Texts kept, one for each chunk boundary."""
        return self.rewind + 1

    @property
    def audio_ring(self) -> int:
        """Samples kept: the chunks that may be taken back, what is before them, one chunk that has
        arrived but cannot be computed yet, and one that is arriving."""
        return self.chunk * (self.rewind + 2) + LOOKBACK

    @property
    def text_size(self) -> int:
        """Numbers in one packed text."""
        return (2 * self.config.num_decoder_layers + 1) * self.config.decoder_hidden_size

    def bytes_per_stream(self, dtype: torch.dtype) -> int:
        """Device memory of one slot."""
        encoder = self.config.encoder
        frames = 2 * self.attention_ring + self.convolution_ring
        numbers = encoder.num_hidden_layers * encoder.hidden_size * frames
        numbers += self.text_ring * self.text_size
        terms = 20 * EDGES + 8 * self.text_ring
        return numbers * dtype.itemsize + 4 * (self.audio_ring + 2 * VAD_UNITS) + terms


@frozen
class Stretch:
    """Samples (batch, n), and which of them exist (batch, n)."""

    samples: Tensor
    present: Tensor


@frozen
class Slots:
    """The tensors. All have ``slots + 1`` rows."""

    layout: Layout
    audio: Tensor
    """(rows, audio ring) float32."""
    attention: tuple[Tensor, ...]
    """For each layer (rows, attention ring, 2 dim): keys and values side by side."""
    convolution: tuple[Tensor, ...]
    """For each layer (rows, convolution ring, dim)."""
    text: Tensor
    """(rows, text ring, text size): the text before chunk k is at k modulo the ring."""
    vad: Tensor
    """(rows, 2, 128) float32: hidden and cell of the speech detector."""
    terms: TermSlots
    """Key terms."""

    @classmethod
    def allocate(cls, layout: Layout, device: torch.device, dtype: torch.dtype) -> Self:
        """Zeroed tensors: what is masked is still multiplied by zero, so it must be finite."""
        encoder, rows = layout.config.encoder, layout.slots + 1

        def zeros(*shape: int, kind: torch.dtype = dtype) -> Tensor:
            if device.type == "cpu" and kind == torch.float32:
                # Memory that nobody has touched yet, which torch's own zeros would do.
                return torch.from_numpy(np.zeros((rows, *shape), np.float32))
            return torch.zeros(rows, *shape, dtype=kind, device=device)

        layers, dim = range(encoder.num_hidden_layers), encoder.hidden_size
        return cls(
            layout,
            zeros(layout.audio_ring, kind=torch.float32),
            tuple(zeros(layout.attention_ring, 2 * dim) for _ in layers),
            tuple(zeros(layout.convolution_ring, dim) for _ in layers),
            zeros(layout.text_ring, layout.text_size),
            zeros(2, VAD_UNITS, kind=torch.float32),
            TermSlots.allocate(rows, layout.text_ring, device),
        )

    def put_audio(self, slot: Tensor, position: Tensor, new: Tensor, count: Tensor) -> None:
        """Write the first ``count`` (batch,) samples of ``new`` (batch, n) at ``position``."""
        offset = torch.arange(new.shape[1], device=new.device)
        ring = self.audio.shape[1]
        owner = torch.where(offset < count[:, None], slot[:, None], self.layout.slots)
        where = owner * ring + (position[:, None] + offset) % ring
        self.audio.view(-1).index_copy_(0, where.flatten(), new.flatten())

    def get_audio(self, slot: Tensor, position: Tensor, count: int, end: Tensor) -> Stretch:
        """The ``count`` samples from ``position`` (batch,) on, zeros where there are none: before
        sample 0 and from ``end`` (batch,) on."""
        index = position[:, None] + torch.arange(count, device=slot.device)
        ring = self.audio.shape[1]
        samples = self.audio.view(-1)[slot[:, None] * ring + index % ring]
        present = (index >= 0) & (index < end[:, None])
        return Stretch(torch.where(present, samples, 0.0), present)

    def get_text(self, slot: Tensor, chunk: Tensor, start: Tensor) -> Tensor:
        """(batch, text size): the texts before ``chunk`` (batch,); ``start`` (1, text size) before
        chunk 0."""
        kept = self.text[slot, chunk % self.layout.text_ring]
        return torch.where((chunk == 0)[:, None], start, kept)

    def put_text(self, slot: Tensor, chunk: Tensor, text: Tensor) -> None:
        """Keep the texts before ``chunk``."""
        self.text.index_put_((slot, chunk % self.layout.text_ring), text)


@frozen
class SlotCache:
    """``EncoderCache`` over the rings, for one batch. The present is written first, then past and
    present are read with one gather, in order of time whatever the ring's phase."""

    slots: Slots
    attention_in: Tensor
    attention_out: Tensor
    convolution_in: Tensor
    convolution_out: Tensor

    @classmethod
    def of(cls, slots: Slots, slot: Tensor, first: Tensor) -> Self:
        """``slot``, ``first``: (batch,) rows and the first frame of their chunks."""
        layout = slots.layout
        context = layout.config.encoder.conv_context

        def places(ring: int, past: int) -> tuple[Tensor, Tensor]:
            offset = torch.arange(-past, layout.chunk_frames, device=slot.device)
            where = slot[:, None] * ring + (first[:, None] + offset) % ring
            return where[:, past:].flatten(), where

        return cls(
            slots,
            *places(layout.attention_ring, layout.left),
            *places(layout.convolution_ring, context),
        )

    def attention(self, layer: int, new: Tensor) -> Tensor:
        """See ``EncoderCache``."""
        ring = self.slots.attention[layer]
        return _exchange(ring, self.attention_in, self.attention_out, new)

    def convolution(self, layer: int, new: Tensor) -> Tensor:
        """See ``EncoderCache``."""
        ring = self.slots.convolution[layer]
        return _exchange(ring, self.convolution_in, self.convolution_out, new)


def _exchange(ring: Tensor, written: Tensor, read: Tensor, new: Tensor) -> Tensor:
    return ring.view(-1, ring.shape[2]).index_copy_(0, written, new.flatten(0, 1))[read]
