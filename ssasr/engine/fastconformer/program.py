"""What the device does in one step, from new samples to tokens, for one batch of slots.

``Program`` is plain tensor code without a single look at a value: everything that differs between
rows is a number in ``Inputs.table``. It is written in three parts, ``encode``, ``advance`` and
``finish``, because how often to advance is only known from the data; ``PlainRunner`` looks after
each round, and ``graphs.GraphRunner`` replays a captured guess and looks once. Both must answer
the same.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

import torch
from attrs import frozen
from torch import Tensor

from ssasr.engine.fastconformer.biasing import Biasing, Edges
from ssasr.engine.fastconformer.config import FRAME, HOP
from ssasr.engine.fastconformer.encoder import MEL_CONTEXT, Span
from ssasr.engine.fastconformer.features import WINDOW, LogMel
from ssasr.engine.fastconformer.slots import LOOKBACK, SlotCache, Slots
from ssasr.engine.fastconformer.transducer import Decoding, Model, Text
from ssasr.protocol.recognition import VAD_FRAME

VAD_CONTEXT = 64
"""Samples of the frame before that the speech detector looks at."""
ENDLESS = 2**40
"""``END`` of a stream that goes on; also more mel frames than any stream has."""

SpeechDetector = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Frames (batch, n, 512), the samples before them (batch, 64), its state (batch, 2, 128), to the
probabilities of speech (batch, n) and the states after each frame (batch, n, 2, 128)."""


class Column(IntEnum):
    """Columns of ``Inputs.table``; all positions count from the start of the row's segment."""

    SLOT = 0
    POSITION = 1
    """Samples processed before this step."""
    NEW = 2
    """Samples of ``Inputs.audio`` that are this row's."""
    CHUNK = 3
    """The chunk to compute, or -1 for none."""
    END = 4
    """Samples the segment has, once all of them that count have arrived; ENDLESS until then."""
    PROMPT = 5
    VAD_FIRST = 6
    """First speech-probability frame to compute."""
    VAD_COUNT = 7


@frozen
class Inputs:
    """One batch. A row that is only padding has the padding slot, which belongs to no stream."""

    table: Tensor
    """(batch, len(Column)) int64."""
    audio: Tensor
    """(batch, chunk) float32; beyond ``NEW`` anything finite."""

    def column(self, column: Column) -> Tensor:
        """(batch,)."""
        return self.table[:, column]


@frozen
class Running:
    """A batch between ``encode`` and ``finish``."""

    decoding: Decoding
    slot: Tensor
    chunk: Tensor
    """Slots and chunks to file the text under."""
    speech: Tensor
    """(batch, VAD frames) float32."""


@frozen
class Answer:
    """What a step found, on the host. ``tokens``, ``places``, ``confidences``: (batch, room);
    the first ``emitted`` of a row are valid. ``speech``: (batch, VAD frames)."""

    emitted: Tensor
    tokens: Tensor
    places: Tensor
    confidences: Tensor
    speech: Tensor


class Runner(Protocol):
    """Runs a ``Program`` on batches that lie in host memory."""

    largest: int
    """Rows that one call takes."""
    steps: int
    """Threads that may call ``run`` at the same time, for different slots."""
    max_chunks: int
    """Of a stream in one step of the recogniser: each is a run of its own, for which all others of
    the step wait. Steps follow each other at once, so a stream that was taken over catches up as
    fast with few."""

    def warm_up(self) -> None:
        """Do whatever makes the first run as fast as the later ones."""

    def inputs(self, rows: int) -> Inputs:
        """Inputs in host memory for the next ``run``, to be filled by the caller; valid until
        then."""

    def run(self, inputs: Inputs) -> Answer:
        """One step of all rows. What is returned is valid until the next one."""

    def set_terms(self, slot: int, edges: Edges) -> None:
        """Key terms of a slot, from the next run on."""


class Program:
    """The device's part of a step, over one set of slots."""

    def __init__(self, model: Model, slots: Slots, detector: SpeechDetector) -> None:
        self.model, self.slots, self._detect = model, slots, detector
        layout, device = slots.layout, slots.audio.device
        self.layout, self.device = layout, device
        self._log_mel = LogMel(layout.config.encoder.num_mel_bins).to(device)
        self._dtype = slots.text.dtype
        self._relative = model.encoder.relative_keys(layout.chunk_frames)
        self._start = model.decoder.start().pack()
        self._most_per_frame = layout.config.max_symbols_per_step
        self.room = layout.chunk_frames * self._most_per_frame
        self.vad_frames = -(-layout.chunk // VAD_FRAME)

    def encode(self, inputs: Inputs) -> Running:
        """Everything up to the first token."""
        slot, chunk = inputs.column(Column.SLOT), inputs.column(Column.CHUNK)
        position, new = inputs.column(Column.POSITION), inputs.column(Column.NEW)
        self.slots.put_audio(slot, position, inputs.audio, new)
        speech = self._detect_speech(inputs)
        # A row without a chunk goes through the motions in the padding slot.
        computed = chunk >= 0
        slot = torch.where(computed, slot, self.layout.slots)
        chunk = chunk.clamp(min=0)
        end = torch.minimum(inputs.column(Column.END), position + new)
        going_on = inputs.column(Column.END) >= ENDLESS
        mel_frames = torch.where(going_on, ENDLESS, end // HOP)
        span = Span(chunk * self.layout.chunk_frames, mel_frames)
        counts = (span.frames() - span.first).clamp(0, self.layout.chunk_frames)
        counts = torch.where(computed, counts, 0)
        frames = self._frames(inputs.column(Column.SLOT), slot, span, end, counts)
        text = self.slots.get_text(slot, chunk, self._start)
        decoding = Decoding.begin(
            self.model.project(frames, inputs.column(Column.PROMPT)),
            counts,
            Text.unpack(text, self.layout.config.num_decoder_layers),
            self.room,
            self._biasing(slot, chunk),
        )
        return Running(decoding, slot, chunk, speech)

    def advance(self, running: Running) -> None:
        """One round of decoding."""
        running.decoding.advance(self.model, self._most_per_frame)

    def decode(self, running: Running) -> None:
        """Rounds until no row needs another, which takes a look after each."""
        while bool(running.decoding.active().any()):
            self.advance(running)

    def finish(self, running: Running) -> Tensor:
        """Files the text and gives the answer: (batch, answer width) int32. May be repeated after
        further iterations."""
        decoding = running.decoding
        self.slots.put_text(running.slot, running.chunk + 1, decoding.text.pack())
        if decoding.biasing is not None:
            self.slots.terms.keep(running.slot, running.chunk + 1, decoding.biasing)
        state = torch.stack([decoding.emitted, decoding.active()], dim=1).int()
        return torch.cat(
            [
                state,
                decoding.tokens[:, : self.room],
                decoding.places[:, : self.room],
                decoding.confidences[:, : self.room].contiguous().view(torch.int32),
                running.speech.view(torch.int32),
            ],
            dim=1,
        )

    @property
    def answer_width(self) -> int:
        """Numbers in a row of the answer."""
        return 2 + 3 * self.room + self.vad_frames

    def unpack(self, answer: Tensor) -> tuple[Answer, bool]:
        """The answer, and whether some row needs more iterations."""
        sizes = [1, 1, self.room, self.room, self.room, self.vad_frames]
        emitted, active, tokens, places, confidences, speech = torch.split(answer, sizes, dim=1)
        whole = Answer(
            emitted[:, 0],
            tokens,
            places,
            confidences.contiguous().view(torch.float32),
            speech.contiguous().view(torch.float32),
        )
        return whole, bool(active.any())

    def _frames(
        self, source: Tensor, slot: Tensor, span: Span, end: Tensor, counts: Tensor
    ) -> Tensor:
        """(batch, c, dim) of the encoder. ``source``: the slots whose audio it is (batch,).
        ``counts`` (batch,): frames of each row that are looked at."""
        cache = SlotCache.of(self.slots, slot, span.first)
        mel = self._mel(source, span.first, end)
        frames: Tensor = self.model.encoder(mel, span, cache, self._relative)
        return frames

    def _biasing(self, slot: Tensor, chunk: Tensor) -> Biasing | None:
        return self.slots.terms.get(slot, chunk)

    def _mel(self, slot: Tensor, first: Tensor, end: Tensor) -> Tensor:
        """(batch, 8 c + 7, bins) around the chunks that begin at frame ``first``."""
        count = 8 * self.layout.chunk_frames + MEL_CONTEXT // 2
        samples = HOP * (count - 1) + WINDOW + 1
        stretch = self.slots.get_audio(slot, first * FRAME - LOOKBACK, samples, end)
        mel: Tensor = self._log_mel(stretch.samples, stretch.present)
        return mel.to(self._dtype)

    def _detect_speech(self, inputs: Inputs) -> Tensor:
        """(batch, VAD frames) probabilities of speech; keeps the detector's state."""
        slot, first = inputs.column(Column.SLOT), inputs.column(Column.VAD_FIRST)
        count = inputs.column(Column.VAD_COUNT)
        end = inputs.column(Column.POSITION) + inputs.column(Column.NEW)
        wanted = VAD_CONTEXT + VAD_FRAME * self.vad_frames
        begin = first * VAD_FRAME - VAD_CONTEXT
        samples = self.slots.get_audio(slot, begin, wanted, end).samples
        before = torch.where((first > 0)[:, None, None], self.slots.vad[slot], 0.0)
        context, frames = samples.tensor_split((VAD_CONTEXT,), dim=1)
        frames = frames.view(-1, self.vad_frames, VAD_FRAME)
        speech, after = self._detect(frames, context, before)
        # The row's last frame; those behind it have not come yet.
        last = after[torch.arange(len(slot), device=slot.device), (count - 1).clamp(min=0)]
        state = torch.where((count > 0)[:, None, None], last, before)
        self.slots.vad.index_copy_(0, slot, state)
        return speech


class PlainRunner:
    """Runs the program as it is written: the specification, and what a CPU does."""

    steps = 1
    max_chunks = 1
    """A run with one row or two takes most of its time for the weights. So who is behind waits for
    the next step, where the others ride along."""

    def __init__(self, program: Program, largest: int) -> None:
        self._program, self.largest = program, largest

    def warm_up(self) -> None:
        """One step of the padding slot."""
        inputs = self.inputs(1)
        inputs.table[:, Column.SLOT] = self._program.layout.slots
        self.run(inputs)

    def inputs(self, rows: int) -> Inputs:
        """See ``Runner``."""
        table = torch.zeros(rows, len(Column), dtype=torch.int64)
        return Inputs(table, torch.zeros(rows, self._program.layout.chunk))

    @torch.inference_mode()
    def run(self, inputs: Inputs) -> Answer:
        """See ``Runner``."""
        program = self._program
        running = program.encode(
            Inputs(inputs.table.to(program.device), inputs.audio.to(program.device))
        )
        program.decode(running)
        return program.unpack(program.finish(running).cpu())[0]

    def set_terms(self, slot: int, edges: Edges) -> None:
        """See ``Runner``."""
        self._program.slots.terms.put(slot, edges)
