"""Passes through Whisper as CUDA graphs.

A pass over a few tokens is some thirty kernels a layer, of a few microseconds each, so launching
them one by one costs more than they do. Graphs need fixed addresses and sizes: all tensors are
allocated once, and a batch is padded to the next size for which a graph was captured (excerpts,
audio vectors of each, tokens of text: ``_ROWS``, ``_FRAMES``, ``_WIDTHS``). Rows are independent;
positions beyond a row's audio are masked, and the results of padding rows are not read. A row that
is finished keeps its place until the batch is over.

What was measured on devices: ``benchmarks/archive/whisper_device.md``.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import partial
from itertools import product

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from ssasr.engine.graphs import CapturedGraph, GraphRecorder
from ssasr.engine.whisper.alignment import FRAME
from ssasr.engine.whisper.model import Cache
from ssasr.engine.whisper.passes import (
    Batch,
    Excerpt,
    Inputs,
    Network,
    Outputs,
    fill,
    log_probabilities,
)

_ROWS = (1, 4, 16)
_FRAMES = (200, 350, 500, 700, 1500)
"""4 to 30 s with the zeros after the speech; a stream's excerpts are cut at 12 s."""
_WIDTHS = (2, 16, 48)
"""A token and a guess; a token and what may follow it of a draft; a draft from its beginning."""


class _Column(IntEnum):
    """Of the table that says in what two replays differ; a row's tokens follow, and those that are
    asked for after them."""

    FRAMES = 0
    BEFORE = 1
    FIRST = 2
    """The place after which the text begins, or -1."""


class _Found(IntEnum):
    """What a pass answers for each input, one after the other."""

    TOKEN = 0
    LOGPROB = 1
    ASKED = 2


@frozen(order=True)
class _Size:
    """Of a batch: excerpts, and vectors of audio each."""

    rows: int
    frames: int


@frozen
class _Mirrored:
    """What the host writes and the device reads."""

    host: Tensor
    device: Tensor

    @classmethod
    def of(
        cls, count: int, dtype: torch.dtype, recorder: GraphRecorder, device: torch.device
    ) -> "_Mirrored":
        host = recorder.pinned(count, dtype=dtype)
        return cls(host, torch.zeros(count, dtype=dtype, device=device))

    def sized(self, rows: int, columns: int) -> "_Mirrored":
        """The beginning of both, (rows, columns)."""
        count, shape = rows * columns, (rows, columns)
        return _Mirrored(self.host[:count].view(shape), self.device[:count].view(shape))

    def send(self) -> None:
        self.device.copy_(self.host, non_blocking=True)


class GraphPasses:
    """``Passes`` of fixed sizes: one batch at a time, in one thread."""

    def __init__(
        self,
        network: Network,
        recorder: GraphRecorder,
        rows: Sequence[int] = _ROWS,
        frames: Sequence[int] = _FRAMES,
        widths: Sequence[int] = _WIDTHS,
    ) -> None:
        dims, device = network.model.dims, network.device
        self.network, self._recorder = network, recorder
        self.frames, self.room = dims.audio_context, dims.text_context
        self.rows, self.widest = max(rows), max(widths)
        shorter = [size for size in frames if size < self.frames]
        self._sizes = [_Size(*size) for size in product(rows, [*shorter, self.frames])]
        self._widths = widths
        self._columns = len(_Column) + 2 * self.widest
        tables, samples = self.rows * self._columns, self.rows * self.frames * FRAME
        self._tables = _Mirrored.of(tables, torch.int64, recorder, device)
        self._samples = _Mirrored.of(samples, torch.float32, recorder, device)
        vectors = self.frames + network.beyond
        answer = len(_Found) + len(network.heads) * vectors
        answer = answer * self.rows * self.widest + self.rows
        self._host_answer = recorder.pinned(answer, dtype=torch.float32)
        audio = network.model.encoder.positions.new_zeros(self.rows, vectors, dims.audio_width)
        mask = torch.zeros(self.rows, 1, 1, vectors, device=device)
        self._cache = network.model.decoder.start(audio, mask, self.room)
        self._encode_graphs: dict[_Size, CapturedGraph[None]] = {}
        self._decode_graphs: dict[tuple[_Size, int], CapturedGraph[Tensor]] = {}

    @torch.inference_mode(False)  # whose tensors could not be written by a replay outside of it
    @torch.no_grad()
    def warm_up(self) -> None:
        """Capture every size, the largest first: later graphs fit into its memory then."""
        for size in sorted(self._sizes, reverse=True):
            self.table(size).device[:, _Column.FRAMES] = size.frames
            self._encode_graphs[size] = self._recorder.capture(partial(self._encode_pass, size))
            for width in sorted(self._widths, reverse=True):
                read = self._decode_pass(size, width)
                self._decode_graphs[size, width] = self._recorder.capture(read)

    def begin(self, excerpts: Sequence[Excerpt], tokens: int) -> Batch:
        """See ``Passes``. No more excerpts than ``rows``; there is room for all tokens always."""
        rows, frames = len(excerpts), max(excerpt.frames for excerpt in excerpts)
        size = min(size for size in self._sizes if size.rows >= rows and size.frames >= frames)
        return _GraphBatch(self, size, excerpts)

    def table(self, size: _Size) -> _Mirrored:
        """(rows, columns), to be written before ``encode`` and ``read``."""
        return self._tables.sized(size.rows, self._columns)

    def samples(self, size: _Size) -> _Mirrored:
        """(rows, samples), before ``encode``."""
        return self._samples.sized(size.rows, size.frames * FRAME)

    def _width(self, tokens: int) -> int:
        return min(width for width in self._widths if width >= tokens)

    def encode(self, size: _Size) -> None:
        """Begin with what has been written."""
        with self._recorder.working():
            self.table(size).send()
            self.samples(size).send()
            self._encode_graphs[size].replay()
            self._recorder.synchronize()

    def languages(self, size: _Size) -> Tensor:
        """(rows, languages). Not recorded: they are asked for a few times a turn."""
        with self._recorder.working():
            return self.network.languages(self._view(size)).cpu()

    def read(self, size: _Size, tokens: int) -> "_Answer":
        """One pass of what has been written, ``tokens`` in a row at most."""
        width = self._width(tokens)
        recording = self._decode_graphs[size, width]
        answer = self._host_answer[: len(recording.result)]
        with self._recorder.working():
            self.table(size).send()
            recording.replay()
            answer.copy_(recording.result, non_blocking=True)
            self._recorder.synchronize()
        return _Answer.unpack(answer.numpy(), size.rows, width, size.frames + self.network.beyond)

    def _view(self, size: _Size) -> Cache:
        cache, rows, frames = self._cache, size.rows, size.frames + self.network.beyond
        assert cache.cross_mask is not None, "rows differ in length"
        return Cache(
            cache.text[:, :rows],
            tuple(key[:rows, ..., :frames] for key in cache.cross_keys),
            tuple(value[:rows, :, :frames] for value in cache.cross_values),
            cache.cross_mask[:rows, ..., :frames],
        )

    def _encode_pass(self, size: _Size) -> None:
        network = self.network
        lengths = self.table(size).device[:, _Column.FRAMES]
        audio, mask = network.encode(self.samples(size).device, lengths)
        self._view(size).load_audio(network.model.decoder.start(audio, mask, 1))

    def _decode_pass(self, size: _Size, width: int) -> Callable[[], Tensor]:
        table, cache = self.table(size).device, self._view(size)
        inputs = torch.arange(size.rows * width, device=self.network.device)
        opening = inputs[::width]

        def read() -> Tensor:
            first = inputs.view(size.rows, width) % width == table[:, _Column.FIRST, None]
            tokens = table[:, len(_Column) :]
            asked = tokens[:, self.widest :][:, :width]
            logits, no_speech, scores = self.network.read(
                tokens[:, :width],
                table[:, _Column.BEFORE],
                cache,
                self.room,
                inputs,
                first.flatten(),
                opening,
            )
            best, chosen = logits.max(-1)
            below = best - logits.gather(1, asked.reshape(-1, 1))[:, 0]
            logprobs = log_probabilities(best, logits)
            parts = chosen, logprobs, logprobs - below, no_speech, scores
            # A token is small enough to be exact in float32.
            return torch.cat([part.float().flatten() for part in parts])

        return read


@frozen
class _Answer:
    """found (``_Found``, rows, width); no_speech (rows,), for rows that begin; scores (rows, heads,
    width, vectors). Valid until the next pass."""

    found: NDArray[np.float32]
    no_speech: NDArray[np.float32]
    scores: NDArray[np.float32]

    @classmethod
    def unpack(cls, packed: NDArray[np.float32], rows: int, width: int, vectors: int) -> "_Answer":
        parts = np.cumsum([len(_Found) * rows * width, rows])
        found, no_speech, scores = np.split(packed, parts)
        return cls(
            found.reshape(len(_Found), rows, width),
            no_speech,
            scores.reshape(rows, -1, width, vectors),
        )


class _GraphBatch:
    def __init__(self, passes: GraphPasses, size: _Size, excerpts: Sequence[Excerpt]) -> None:
        self._passes, self._size = passes, size
        self._slots = list(range(len(excerpts)))
        self._table = passes.table(size).host.numpy()
        self._table[:, _Column.FRAMES], self._table[:, _Column.BEFORE] = size.frames, 0
        samples = passes.samples(size).host.numpy()
        for slot, excerpt in enumerate(excerpts):
            fill(samples[slot], excerpt)
            self._table[slot, _Column.FRAMES] = excerpt.frames
        passes.encode(size)

    def languages(self) -> Tensor:
        return self._passes.languages(self._size)[self._slots]

    def read(self, inputs: Sequence[Inputs]) -> list[Outputs]:
        passes = self._passes
        for slot, row in zip(self._slots, inputs, strict=True):
            self._table[slot, _Column.BEFORE] = row.prompt_length + row.before
            self._table[slot, _Column.FIRST] = -1 if row.before else row.certain - 1
            rest = self._table[slot, len(_Column) :]
            rest[: len(row.tokens)] = row.tokens
            rest[passes.widest + row.certain - 1 :][: len(row.asked)] = row.asked
        longest = max(len(row.tokens) for row in inputs)
        found = passes.read(self._size, longest)
        results = []
        for slot, row in zip(self._slots, inputs, strict=True):
            wanted = slice(row.certain - 1, len(row.tokens))
            each = found.found[:, slot, wanted].tolist()
            choices = zip(map(int, each[_Found.TOKEN]), each[_Found.LOGPROB], strict=True)
            asked = each[_Found.ASKED][: len(row.asked)]
            no_speech = 0.0 if row.before else float(found.no_speech[slot])
            scores = found.scores[slot, :, : len(row.tokens)].copy()
            results.append(Outputs(list(choices), no_speech, scores, asked))
        return results

    def keep(self, rows: Sequence[int]) -> None:
        self._slots = [self._slots[row] for row in rows]
