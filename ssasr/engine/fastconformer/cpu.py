"""The program as a processor runs it best: the same numbers in another order of work.

A GPU wants one operation for all rows; a processor wants its operands in the cache, and may look
at values. So the layers, which are products with large weights, take all rows of the batch at
once, and the rest takes one stream after the other:

* *Between the products* a row is gone through in compiled loops (``loops``), where operations of
  torch would go through memory for each of their many steps. Attention reads keys and values where
  they lie.
* *Features and subsampling* of one stream stay in the second cache, those of sixteen do not.
* *Frames that do not exist*, as after the end of a segment, are not computed.
* *Decoding* goes on only with the rows that have not finished, and adds to the text only what there
  is: most rounds of a single stream find nothing.

It also makes a row's numbers independent of the batch: what is done for one stream alone has the
same shape whatever its company, the layers of ``quantized`` are exact, and all else is done number
by number.
"""

import math

import numpy as np
import torch
from torch import Tensor, from_numpy
from torch.nn import functional as fn

from ssasr.engine.fastconformer.biasing import NO_PARENT, Biasing
from ssasr.engine.fastconformer.encoder import MEL_CONTEXT, Span
from ssasr.engine.fastconformer.layers import Layer, Subsampling
from ssasr.engine.fastconformer.loops import Streams
from ssasr.engine.fastconformer.program import Program, Running, SpeechDetector
from ssasr.engine.fastconformer.slots import Slots
from ssasr.engine.fastconformer.transducer import Model


class CpuProgram(Program):
    """See ``Program``, whose answers it gives."""

    def __init__(self, model: Model, slots: Slots, detector: SpeechDetector) -> None:
        super().__init__(model, slots, detector)
        pairs = zip(model.encoder.blocks(), self._relative, strict=True)
        self._layers = [Layer.of(block, relative) for block, relative in pairs]
        self._subsampling = Subsampling.of(model.encoder.subsampling)
        # The rings' memory, in an order of its own (``loops.attend``).
        self._attention = [each.numpy().reshape(len(each), 2, -1) for each in slots.attention]
        self._convolution = [each.numpy() for each in slots.convolution]

    def decode(self, running: Running) -> None:
        """See ``Program``."""
        decoding = running.decoding
        while len(rows := decoding.active().nonzero()[:, 0]):
            part = decoding.part(rows)
            found, token = part.choose(self.model, self._most_per_frame)
            if bool(found.any()):
                part.append(self.model, found, token)
            decoding.put(rows, part)

    def _biasing(self, slot: Tensor, chunk: Tensor) -> Biasing | None:
        listed = self.slots.terms.parents[slot, 0] != NO_PARENT
        return super()._biasing(slot, chunk) if bool(listed.any()) else None

    def _frames(
        self, source: Tensor, slot: Tensor, span: Span, end: Tensor, counts: Tensor
    ) -> Tensor:
        config, encoder = self.layout.config.encoder, self.model.encoder
        exists = torch.arange(self.layout.chunk_frames) < counts[:, None]
        frames = torch.zeros(*exists.shape, config.hidden_size)
        if not bool(exists.any()):
            return frames
        x: Tensor = encoder.subsampling.linear(self._subsampled(source, span, end, counts))
        if config.scale_input:
            x = x * math.sqrt(config.hidden_size)
        rows, bounds = x.numpy(), fn.pad(counts.cumsum(0), (1, 0))
        columns = (slot, span.first, span.frames(), bounds)
        streams = Streams(*(np.ascontiguousarray(each.numpy()) for each in columns))
        rings = (self._attention, self._convolution)
        for layer, attention, convolution in zip(self._layers, *rings, strict=True):
            layer.run(rows, streams, attention, convolution, self.layout.left)
        frames[exists] = from_numpy(rows)
        return frames

    # -- features ----------------------------------------------------------------------------------

    def _subsampled(self, source: Tensor, span: Span, end: Tensor, counts: Tensor) -> Tensor:
        """(frames that exist, channels × bins): all of the subsampling but its linear layer."""
        found = []
        columns = (span.first, span.mel_frames, counts)
        places = zip(*(each.tolist() for each in columns), strict=True)
        for row, (first, mel_frames, count) in enumerate(places):
            if count:
                one = slice(row, row + 1)
                mel = self._mel(source[one], span.first[one], end[one])[0].numpy()
                whole = self._subsampling.run(mel, 8 * first - MEL_CONTEXT, mel_frames)
                found.append(whole[:count])
        return torch.cat(found)
